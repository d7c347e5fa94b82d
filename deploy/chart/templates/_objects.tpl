{{/*
The objects of a file of files/, with the names of the release in place of those of deploy/, as a map
with the key `items`. Takes a list: the context and the name of the file.
*/}}
{{- define "localmodel.documents" -}}
{{- $context := index . 0 -}}
{{- $values := $context.Values -}}
{{- $namespace := $context.Release.Namespace -}}
{{- $meta := $values.metacontroller -}}
{{- $secret := include "localmodel.tokenSecret" $context -}}
{{- $text := $context.Files.Get (printf "files/%s.yaml" (index . 1)) -}}
{{- /* In two steps: the release's namespace may be named metacontroller. */ -}}
{{- $text = $text
  | replace "namespace: metacontroller\n" "namespace: {metacontroller}\n"
  | replace "namespace: localmodel\n" (printf "namespace: %s\n" $namespace)
  | replace "namespace: {metacontroller}\n" (printf "namespace: %s\n" $meta.namespace)
  | replace "system:serviceaccount:localmodel:" (printf "system:serviceaccount:%s:" $namespace)
  | replace "localmodel-hooks.localmodel.svc:" (printf "localmodel-hooks.%s.svc:" $namespace)
  | replace "name: localmodel-hooks-token\n" (printf "name: %s\n" $secret)
  | replace "secretName: localmodel-hooks-token\n" (printf "secretName: %s\n" $secret)
  | replace "- localmodel-hooks-token\n" (printf "- %s\n" $secret)
-}}
{{- /* Expressions and descriptions of alerts. */ -}}
{{- $text = regexReplaceAll "(namespace=\\\\?\"|-n |--namespace[ =])localmodel\\b" $text (printf "${1}%s" $namespace) -}}
{{- $items := list -}}
{{- range $document := regexSplit "(?m)^---\n" $text -1 -}}
{{- $object := fromYaml $document -}}
{{- if $object.Error -}}{{- fail $object.Error -}}{{- end -}}
{{- if $object -}}{{- $items = append $items $object -}}{{- end -}}
{{- end -}}
{{- dict "items" $items | toJson -}}
{{- end -}}

{{/* Refuses values that cannot work together. */}}
{{- define "localmodel.check" -}}
{{- $meta := .Values.metacontroller -}}
{{- if and $meta.install (eq $meta.namespace .Release.Namespace) -}}
{{- fail (printf "metacontroller.namespace: Metacontroller cannot be installed into %s, the namespace of the release: its namespace has Pod Security's level restricted, which refuses the agents. Name another namespace." $meta.namespace) -}}
{{- end -}}
{{- end -}}

{{/* Renders the objects of a file that the values do not leave out. */}}
{{- define "localmodel.render" -}}
{{- $context := index . 0 -}}
{{- $file := index . 1 -}}
{{- range $object := (include "localmodel.documents" . | fromJson).items -}}
{{- if and $object.kind (eq "yes" (include "localmodel.wanted" (list $context $object $file))) }}
{{- include "localmodel.changed" (list $context $object) }}
---
{{ toYaml $object }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* `yes` unless the values leave an object out. Takes a list: the context, the object and its file. */}}
{{- define "localmodel.wanted" -}}
{{- $context := index . 0 -}}
{{- $object := index . 1 -}}
{{- $values := $context.Values -}}
{{- $rights := list "ClusterRole" "ClusterRoleBinding" "Role" "RoleBinding" -}}
{{- if and (eq "metacontroller" (index . 2)) (not $values.metacontroller.install) (not (has $object.kind $rights)) -}}
{{- else if eq $object.kind "NetworkPolicy" -}}
{{- if $values.networkPolicies.enabled -}}yes{{- end -}}
{{- else if ne $object.kind "Namespace" -}}yes
{{- else if eq $object.metadata.name "localmodel" -}}
{{- if $values.namespaces.release -}}yes{{- end -}}
{{- else if eq $object.metadata.name "kserve-localmodel-jobs" -}}
{{- $found := lookup "v1" "Namespace" "" $object.metadata.name -}}
{{- $owner := dig "metadata" "annotations" "meta.helm.sh/release-name" "" $found -}}
{{- if and $values.namespaces.credentials (or (not $found) (eq $owner $context.Release.Name)) -}}yes{{- end -}}
{{- else -}}yes{{- end -}}
{{- end -}}

{{/* Changes an object by the values. */}}
{{- define "localmodel.changed" -}}
{{- $context := index . 0 -}}
{{- $object := index . 1 -}}
{{- $values := $context.Values -}}
{{- $meta := $values.metacontroller -}}
{{- $key := printf "%s/%s" $object.kind (dig "metadata" "name" "" $object) -}}
{{- if eq $key "Namespace/localmodel" -}}
{{- $_ := set $object.metadata "name" $context.Release.Namespace -}}
{{- else if eq $key "Namespace/kserve-localmodel-jobs" -}}
{{- $_ := set $object.metadata "annotations" (dict "helm.sh/resource-policy" "keep") -}}
{{- else if eq $key "Namespace/metacontroller" -}}
{{- $_ := set $object.metadata "name" $meta.namespace -}}
{{- else if eq $key "DaemonSet/localmodel-agent" -}}
{{- include "localmodel.agent" (list $context $object) -}}
{{- else if eq $key "Deployment/localmodel-hooks" -}}
{{- include "localmodel.hooks" (list $context $object) -}}
{{- else if eq $key "StatefulSet/metacontroller" -}}
{{- include "localmodel.metacontroller" (list $context $object) -}}
{{- else if eq $key "NetworkPolicy/localmodel-hooks" -}}
{{- $caller := first (first $object.spec.ingress).from -}}
{{- $_ := set $caller.namespaceSelector "matchLabels" (dict "kubernetes.io/metadata.name" $meta.namespace) -}}
{{- /* Helm would merge labels of the user into a default value: no pod has the labels of both. */ -}}
{{- with $meta.podLabels -}}{{- $_ := set $caller.podSelector "matchLabels" . -}}{{- end -}}
{{- end -}}
{{- if not $values.aggregatedRoles.enabled -}}
{{- with $object.metadata.labels -}}
{{- $_ := unset . "rbac.authorization.k8s.io/aggregate-to-view" -}}
{{- $_ := unset . "rbac.authorization.k8s.io/aggregate-to-edit" -}}
{{- end -}}
{{- end -}}
{{- if has $object.kind (list "PodMonitor" "PrometheusRule") -}}
{{- $_ := set $object.metadata "labels" (merge (deepCopy $object.metadata.labels) $values.monitoring.labels) -}}
{{- end -}}
{{- range $subject := $object.subjects -}}
{{- if eq $subject.name "metacontroller" -}}
{{- $_ := set $subject "name" ($meta.install | ternary "metacontroller" $meta.serviceAccount) -}}
{{- end -}}
{{- end -}}
{{- /* A Metacontroller of another release has roles of this name. */ -}}
{{- if and (not $meta.install) (eq "metacontroller" (dig "metadata" "name" "" $object)) -}}
{{- $_ := set $object.metadata "name" "localmodel-metacontroller" -}}
{{- with $object.roleRef -}}{{- $_ := set . "name" "localmodel-metacontroller" -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "localmodel.hooks" -}}
{{- $context := index . 0 -}}
{{- $object := index . 1 -}}
{{- $values := $context.Values.hooks -}}
{{- $pod := $object.spec.template.spec -}}
{{- $container := first $pod.containers -}}
{{- $env := dict -}}
{{- with $context.Values.hostPath -}}{{- $_ := set $env "LOCALMODEL_HOST_PATH" . -}}{{- end -}}
{{- $_ := set $object.spec "replicas" $values.replicas -}}
{{- include "localmodel.pod" (list $context $object $values $context.Chart.Version) -}}
{{- include "localmodel.env" (list $container (merge (deepCopy $values.env) $env)) -}}
{{- with $values.tolerations -}}{{- $_ := set $pod "tolerations" . -}}{{- end -}}
{{- end -}}

{{- define "localmodel.metacontroller" -}}
{{- $context := index . 0 -}}
{{- $object := index . 1 -}}
{{- $values := $context.Values.metacontroller -}}
{{- $pod := $object.spec.template.spec -}}
{{- $container := first $pod.containers -}}
{{- include "localmodel.pod" (list $context $object $values (splitList ":" $container.image | last)) -}}
{{- with $values.args -}}{{- $_ := set $container "args" (concat $container.args .) -}}{{- end -}}
{{- with $values.tolerations -}}{{- $_ := set $pod "tolerations" . -}}{{- end -}}
{{- end -}}

{{- define "localmodel.agent" -}}
{{- $context := index . 0 -}}
{{- $object := index . 1 -}}
{{- $values := $context.Values.agent -}}
{{- $pod := $object.spec.template.spec -}}
{{- $container := first $pod.containers -}}
{{- include "localmodel.pod" (list $context $object $values $context.Chart.Version) -}}
{{- $env := dict -}}
{{- if $context.Values.startupTaint.enabled -}}
{{- $_ := set $env "LOCALMODEL_STARTUP_TAINT_PRIORITY" (toString (int64 $context.Values.startupTaint.priority)) -}}
{{- end -}}
{{- include "localmodel.env" (list $container (merge (deepCopy $values.env) $env)) -}}
{{- with $values.args -}}{{- $_ := set $container "args" (concat $container.args .) -}}{{- end -}}
{{- with $values.extraVolumeMounts -}}
{{- $_ := set $container "volumeMounts" (concat $container.volumeMounts .) -}}
{{- end -}}
{{- range $volume := $pod.volumes -}}
{{- if and $context.Values.hostPath (eq $volume.name "models") -}}
{{- $_ := set $volume.hostPath "path" $context.Values.hostPath -}}
{{- end -}}
{{- end -}}
{{- with $values.extraVolumes -}}{{- $_ := set $pod "volumes" (concat $pod.volumes .) -}}{{- end -}}
{{- if not (kindIs "invalid" $values.tolerations) -}}{{- $_ := set $pod "tolerations" $values.tolerations -}}{{- end -}}
{{- $_ := set $object.spec.updateStrategy.rollingUpdate "maxUnavailable" $values.maxUnavailable -}}
{{- end -}}

{{/* Adds to a workload what the components that the values choose add to it. */}}
{{- define "localmodel.additions" -}}
{{- $context := index . 0 -}}
{{- $object := index . 1 -}}
{{- $pod := $object.spec.template.spec -}}
{{- $container := first $pod.containers -}}
{{- $name := printf "%s/%s" $object.kind $object.metadata.name -}}
{{- range $component := include "localmodel.components" $context | fromJsonArray -}}
{{- range $added := (include "localmodel.documents" (list $context $component) | fromJson).items -}}
{{- if eq $name ($added.additionsTo | default "") -}}
{{- range $field := list "env" "volumeMounts" -}}
{{- with get $added $field -}}
{{- $_ := set $container $field (concat (get $container $field | default list) .) -}}
{{- end -}}
{{- end -}}
{{- with $added.volumes -}}
{{- $_ := set $pod "volumes" (concat ($pod.volumes | default list) .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
What all programs have. Takes a list: the context, the workload, its values, and the tag of its image
where the values name none.
*/}}
{{- define "localmodel.pod" -}}
{{- $context := index . 0 -}}
{{- $template := (index . 1).spec.template -}}
{{- $values := index . 2 -}}
{{- $container := first $template.spec.containers -}}
{{- include "localmodel.additions" (list $context (index . 1)) -}}
{{- $image := $values.image -}}
{{- $reference := printf "%s:%s" $image.repository ($image.tag | default (index . 3)) -}}
{{- if $image.digest -}}{{- $reference = printf "%s@%s" $image.repository $image.digest -}}{{- end -}}
{{- $_ := set $container "image" $reference -}}
{{- with $image.pullPolicy -}}{{- $_ := set $container "imagePullPolicy" . -}}{{- end -}}
{{- with $context.Values.imagePullSecrets -}}{{- $_ := set $template.spec "imagePullSecrets" . -}}{{- end -}}
{{- with $values.resources -}}{{- $_ := set $container "resources" . -}}{{- end -}}
{{- with $values.nodeSelector -}}
{{- $_ := set $template.spec "nodeSelector" (merge (deepCopy .) ($template.spec.nodeSelector | default dict)) -}}
{{- end -}}
{{- with $values.affinity -}}{{- $_ := set $template.spec "affinity" . -}}{{- end -}}
{{- with $values.podAnnotations -}}
{{- $_ := set $template.metadata "annotations" (merge (deepCopy .) ($template.metadata.annotations | default dict)) -}}
{{- end -}}
{{- with $values.podLabels -}}
{{- $_ := set $template.metadata "labels" (merge (deepCopy $template.metadata.labels) .) -}}
{{- end -}}
{{- end -}}

{{/* Sets variables of a container. Takes a list: the container, and values by name. */}}
{{- define "localmodel.env" -}}
{{- $container := index . 0 -}}
{{- $wanted := index . 1 -}}
{{- $env := list -}}
{{- range $entry := $container.env -}}
{{- if hasKey $wanted $entry.name -}}
{{- $entry = dict "name" $entry.name "value" (get $wanted $entry.name) -}}
{{- end -}}
{{- $env = append $env $entry -}}
{{- end -}}
{{- range $name := keys $wanted | sortAlpha -}}
{{- $known := list -}}
{{- range $entry := $env -}}{{- $known = append $known $entry.name -}}{{- end -}}
{{- if not (has $name $known) -}}
{{- $env = append $env (dict "name" $name "value" (get $wanted $name)) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $container "env" $env -}}
{{- end -}}

{{/* The files of the components that the values choose, as a list. */}}
{{- define "localmodel.components" -}}
{{- $names := list -}}
{{- if .Values.hooks.token.enabled -}}{{- $names = append $names "hooks-token" -}}{{- end -}}
{{- if .Values.kubeletConfigz.enabled -}}{{- $names = append $names "kubelet-configz" -}}{{- end -}}
{{- if .Values.startupTaint.enabled -}}{{- $names = append $names "startup-taint" -}}{{- end -}}
{{- if .Values.monitoring.enabled -}}{{- $names = append $names "monitoring" -}}{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{- define "localmodel.tokenSecret" -}}
{{- .Values.hooks.token.existingSecret | default "localmodel-hooks-token" -}}
{{- end -}}
