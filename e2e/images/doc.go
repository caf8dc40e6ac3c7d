// Package images builds, on a Debian machine that reaches Debian packages and Go
// modules but no container registry, the images that a cluster of the lab runs:
// the provisioner from the project's own Dockerfile, and stand-ins for the few
// public images that its pods ask for by name. Each becomes a docker-archive
// that `ctr images import` and `docker load` take.
//
// The base image that the Dockerfiles start from is made by debootstrap and kept
// under the very name that they ask for, so the same Dockerfiles build unchanged
// where there is a registry. All building is done by buildah, without a daemon
// and with a storage of its own: the images of the user are not touched.
//
// An archive is named after a hash of what it was made from. One that is there
// is up to date, and is returned without anything being run.
package images
