package cephconn

import "strings"

// blocklistAddress returns one address of those that librados prints: ADDRESS:0/NONCE, or
// [v2:ADDRESS:0/NONCE,v1:ADDRESS:0/NONCE]. The monitors ignore the type, and the nonce is
// the same in both.
func blocklistAddress(addresses string) string {
	if first, _, several := strings.Cut(addresses, ","); several {
		addresses = strings.TrimPrefix(first, "[")
	}
	return withoutType(addresses)
}

// IsOwn reports whether the address of a watcher is one of this client's, given as ADDRESS
// or [v2:ADDRESS,v1:ADDRESS].
func IsOwn(addresses, watcher string) bool {
	for _, address := range strings.Split(strings.Trim(addresses, "[]"), ",") {
		if withoutType(address) == withoutType(watcher) {
			return true
		}
	}
	return false
}

func withoutType(address string) string {
	for _, prefix := range []string{"v1:", "v2:", "any:"} {
		if rest, ok := strings.CutPrefix(address, prefix); ok {
			return rest
		}
	}
	return address
}
