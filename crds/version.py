"""The version of localmodel, of which the image, the manifests and the package are made.

`make release VERSION=0.2.0` changes it, here and where it cannot be read from here.
"""

__version__ = "0.1.0"
