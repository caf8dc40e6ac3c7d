// Package expansion expands the volumes of claims that request more than they have. It
// does what external-resizer does for CSI volumes, with the same steps, conditions and
// event reasons.
package expansion
