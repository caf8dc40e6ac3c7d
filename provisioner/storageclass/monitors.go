package storageclass

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// parseMonitors parses the parameter monitors: a comma-separated list of host,
// host:port or [IPv6]:port. The entries keep their order and spelling, because
// csi-translation-lib derives the CSI cluster id from them. Names are not resolved: the
// address of a monitor may change, but a volume cannot.
func parseMonitors(list string) ([]string, error) {
	if typedAddress.MatchString(list) {
		return nil, errors.New("nodes accept plain addresses only: " +
			"give each monitor's v1 address as host:port, without v1:, v2: and brackets")
	}
	var monitors []string
	for _, monitor := range strings.Split(list, ",") {
		monitor = strings.TrimSpace(monitor)
		if monitor == "" {
			continue
		}
		if err := checkMonitor(monitor); err != nil {
			return nil, fmt.Errorf("%q: %w", Truncate(monitor), err)
		}
		monitors = append(monitors, monitor)
	}
	switch n := len(monitors); {
	case n == 0:
		return nil, errors.New("contains no address")
	case n > rbdutil.MaxMonitors:
		return nil, fmt.Errorf("nodes accept at most %d monitors, got %d", rbdutil.MaxMonitors, n)
	}
	return monitors, nil
}

var (
	// typedAddress matches an entry with a protocol, as `ceph mon dump` prints it:
	// v1:10.0.0.1:6789, alone or in a bracketed list. A host may be called v1.
	typedAddress = regexp.MustCompile(`(^|,)\s*(\[\s*v[12]:|v[12]:[^,]*:)`)
	hostName     = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)
	onlyDigits   = regexp.MustCompile(`^[0-9.]+$`)
)

func checkMonitor(monitor string) error {
	if strings.ContainsAny(monitor, " \t\r\n;") {
		return errors.New("monitors must be separated by commas")
	}
	if strings.Contains(monitor, "/") {
		return errors.New("give host:port, without a scheme, and without a nonce after a slash")
	}
	host, port, err := splitHostPort(monitor)
	if err != nil {
		return err
	}
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q is not a port from 1 to 65535", Truncate(port))
		}
	}
	return checkHost(host)
}

// splitHostPort is net.SplitHostPort with an optional port.
func splitHostPort(monitor string) (host, port string, err error) {
	if rest, bracketed := strings.CutPrefix(monitor, "["); bracketed {
		host, after, closed := strings.Cut(rest, "]")
		if !closed {
			return "", "", errors.New("the closing bracket is missing")
		}
		if err := checkIPv6(host); err != nil {
			return "", "", err
		}
		port, given := strings.CutPrefix(after, ":")
		if after != "" && (!given || port == "") {
			return "", "", errors.New("only :port may follow the brackets")
		}
		return host, port, nil
	}
	if strings.Count(monitor, ":") > 1 {
		return "", "", errors.New("put an IPv6 address in brackets")
	}
	host, port, given := strings.Cut(monitor, ":")
	if given && port == "" {
		return "", "", errors.New("the port after the colon is missing")
	}
	return host, port, nil
}

func checkIPv6(host string) error {
	address, err := netip.ParseAddr(host)
	switch {
	case err != nil || !address.Is6():
		return errors.New("only an IPv6 address may be in brackets")
	case address.Zone() != "":
		return errors.New("an IPv6 address must not have a zone, which depends on the node")
	case address.Is4In6():
		// Ceph cannot read it.
		return fmt.Errorf("give the IPv4 address itself, %s, without brackets", address.Unmap())
	}
	return nil
}

func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if onlyDigits.MatchString(host) {
		return fmt.Errorf("%q is not an IPv4 address", Truncate(host))
	}
	if len(host) > 253 || !hostName.MatchString(host) {
		return fmt.Errorf(`%q is not a host name (letters, digits, "-" and "_", with dots between)`, Truncate(host))
	}
	return nil
}
