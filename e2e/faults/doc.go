// Package faults breaks Ceph under a provisioner that works, in every way that a
// lab can, and wants all to be well by itself when Ceph is.
//
// It breaks the lab's own Ceph clusters, so that nothing else can be tested there at
// the same time, and no two of its tests. Beside what package controller needs,
// RBD_LAB names the lab, which must have a second Ceph, and a first one that outlives
// its OSD: `lab run NAME --nodes 0 --durable-ceph --second-ceph -- go test …`.
package faults
