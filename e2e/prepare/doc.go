// Package prepare has what the packages lab and images share. Both run steps that take minutes,
// such as building Kubernetes or a container image. They report progress, let one process at a
// time work, and install Debian packages. Results are named after a hash of their inputs.
package prepare
