package app

// version is set by the linker (-X). The component version of Kubernetes is not used, because it accepts
// only v1.2.3 and panics at the output of git describe.
var version = "unknown"
