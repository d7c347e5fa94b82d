"""Real nodes of a local cluster: kubelet and containerd, in namespaces of the kernel."""
