// Package faults breaks Ceph under a working provisioner, in every way that a lab supports.
// Everything must recover without manual work once Ceph does.
//
// It breaks the lab's own Ceph clusters. So no other tests can use them at the same time, and
// its tests run one after the other. In addition to the requirements of package controller,
// RBD_LAB must name the lab. The lab must have a second Ceph, and its first one must be
// durable: `lab run NAME --nodes 0 --durable-ceph --second-ceph -- go test …`.
package faults
