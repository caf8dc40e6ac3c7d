package provisioner

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/fixture"
	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
)

func TestMonitors(t *testing.T) {
	t.Parallel()
	const (
		typed    = "nodes accept plain addresses only: give each monitor's v1 address as host:port, without v1:, v2: and brackets"
		commas   = "monitors must be separated by commas"
		slash    = "give host:port, without a scheme, and without a nonce after a slash"
		brackets = "only an IPv6 address may be in brackets"
		behind   = "only :port may follow the brackets"
		bare     = "put an IPv6 address in brackets"
		noPort   = "the port after the colon is missing"
		none     = "contains no address"
		open     = "the closing bracket is missing"
		zone     = "an IPv6 address must not have a zone, which depends on the node"
		ports    = " from 1 to 65535"
		letters  = ` (letters, digits, "-" and "_", with dots between)`
	)
	long := strings.Repeat("a.", 126) + "a" // 253 characters, the longest name
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("10.0.%d.%d:6789", i/250, i%250))
	}
	for name, test := range map[string]struct {
		list string
		want []string
		err  string
	}{
		"an IPv4 address":                        {list: "10.0.0.1", want: []string{"10.0.0.1"}},
		"an IPv4 address with a port":            {list: "10.0.0.1:6789", want: []string{"10.0.0.1:6789"}},
		"an IPv6 address in brackets":            {list: "[2001:db8::1]", want: []string{"[2001:db8::1]"}},
		"an IPv6 address in brackets and a port": {list: "[2001:db8::1]:6789", want: []string{"[2001:db8::1]:6789"}},
		"an IPv6 address is not rewritten":       {list: "[2001:0DB8:0::0001]:6789", want: []string{"[2001:0DB8:0::0001]:6789"}},
		"a host":                                 {list: "mon", want: []string{"mon"}},
		"a host with a port":                     {list: "mon:3300", want: []string{"mon:3300"}},
		"a DNS name":                             {list: "ceph-mon.ceph.svc:6789", want: []string{"ceph-mon.ceph.svc:6789"}},
		"a DNS name with a dot at its end":       {list: "mon.example.com.:6789", want: []string{"mon.example.com.:6789"}},
		"a DNS name keeps its case":              {list: "Mon.Example.COM", want: []string{"Mon.Example.COM"}},
		"a DNS name with underscores":            {list: "ceph_mon._tcp.example.com", want: []string{"ceph_mon._tcp.example.com"}},
		"a label of digits":                      {list: "1.mon.example.com", want: []string{"1.mon.example.com"}},
		"a host that begins with a digit":        {list: "3com:6789", want: []string{"3com:6789"}},
		"the longest name":                       {list: long, want: []string{long}},
		"a host called v1":                       {list: "v1", want: []string{"v1"}},
		"a host called v1, with a port":          {list: "v1:6789", want: []string{"v1:6789"}},
		"two hosts called v1 and v2":             {list: "v1:6789,v2:6789", want: []string{"v1:6789", "v2:6789"}},
		"a host whose name ends with v1":         {list: "mon-v1:6789,monv2:3300", want: []string{"mon-v1:6789", "monv2:3300"}},
		"a host below v2":                        {list: "v2.example.com:6789", want: []string{"v2.example.com:6789"}},
		"the highest port":                       {list: "mon:65535", want: []string{"mon:65535"}},
		"the lowest port":                        {list: "mon:1", want: []string{"mon:1"}},
		"a port keeps its spelling":              {list: "mon:06789", want: []string{"mon:06789"}},
		"as many as nodes take":                  {list: strings.Join(many[:31], ","), want: many[:31]},
		"several keep their order":               {list: "c:1,a:2,b", want: []string{"c:1", "a:2", "b"}},
		"one given twice stays twice":            {list: "a,a", want: []string{"a", "a"}},
		"blanks around entries go, order and spelling stay": {
			list: " 10.0.0.2:6789 ,\tMON-a ,\n[2001:db8::1]:6789", want: []string{"10.0.0.2:6789", "MON-a", "[2001:db8::1]:6789"}},
		"empty entries go": {list: ",a,, ,b,", want: []string{"a", "b"}},

		"commas":                                {list: " , ,", err: none},
		"a blank between two":                   {list: "a b", err: `"a b": ` + commas},
		"a line break between two":              {list: "a\nb", err: `"a\nb": ` + commas},
		"a semicolon between two":               {list: "a:6789;b:6789", err: `"a:6789;b:6789": ` + commas},
		"port 0":                                {list: "mon:0", err: `"mon:0": "0" is not a port` + ports},
		"port 65536":                            {list: "mon:65536", err: `"mon:65536": "65536" is not a port` + ports},
		"a port of letters":                     {list: "mon:abc", err: `"mon:abc": "abc" is not a port` + ports},
		"a negative port":                       {list: "mon:-1", err: `"mon:-1": "-1" is not a port` + ports},
		"a port with a sign":                    {list: "mon:+6789", err: `"mon:+6789": "+6789" is not a port` + ports},
		"a port in hexadecimal":                 {list: "mon:0x1a85", err: `"mon:0x1a85": "0x1a85" is not a port` + ports},
		"no port after the colon":               {list: "mon:", err: `"mon:": ` + noPort},
		"no port behind IPv6 and colon":         {list: "[2001:db8::1]:", err: `"[2001:db8::1]:": ` + behind},
		"port 0 behind IPv6":                    {list: "[2001:db8::1]:0", err: `"[2001:db8::1]:0": "0" is not a port` + ports},
		"text after the brackets":               {list: "[2001:db8::1]6789", err: `"[2001:db8::1]6789": ` + behind},
		"IPv6 without brackets":                 {list: "2001:db8::1", err: `"2001:db8::1": ` + bare},
		"IPv6 without brackets, with a port":    {list: "2001:db8::1:6789", err: `"2001:db8::1:6789": ` + bare},
		"IPv4 in brackets":                      {list: "[10.0.0.1]:6789", err: `"[10.0.0.1]:6789": ` + brackets},
		"a name in brackets":                    {list: "[mon]:6789", err: `"[mon]:6789": ` + brackets},
		"brackets that do not close":            {list: "[2001:db8::1", err: `"[2001:db8::1": ` + open},
		"empty brackets":                        {list: "[]:6789", err: `"[]:6789": ` + brackets},
		"IPv6 with a zone":                      {list: "[fe80::1%eth0]:6789", err: `"[fe80::1%eth0]:6789": ` + zone},
		"not quite an IPv4 address":             {list: "10.0.0.256:6789", err: `"10.0.0.256:6789": "10.0.0.256" is not an IPv4 address`},
		"an IPv4 address cut short":             {list: "10.0.1", err: `"10.0.1": "10.0.1" is not an IPv4 address`},
		"a number":                              {list: "6789", err: `"6789": "6789" is not an IPv4 address`},
		"a port without a host":                 {list: ":6789", err: `":6789": "" is not a host name` + letters},
		"a name that begins with a hyphen":      {list: "-mon", err: `"-mon": "-mon" is not a host name` + letters},
		"a label that ends with a hyphen":       {list: "mon-.example.com", err: `"mon-.example.com": "mon-.example.com" is not a host name` + letters},
		"an empty label":                        {list: "mon..example.com", err: `"mon..example.com": "mon..example.com" is not a host name` + letters},
		"a name with an at sign":                {list: "admin@mon", err: `"admin@mon": "admin@mon" is not a host name` + letters},
		"a name with an equals sign":            {list: "mon_host=mon", err: `"mon_host=mon": "mon_host=mon" is not a host name` + letters},
		"a name in quotes":                      {list: `"mon"`, err: `"\"mon\"": "\"mon\"" is not a host name` + letters},
		"a name that is not ASCII":              {list: "möhn", err: `"möhn": "möhn" is not a host name` + letters},
		"a name that is too long":               {list: long + ".a", err: `"` + long[:100] + `…": "` + long[:100] + `…" is not a host name` + letters},
		"a scheme":                              {list: "https://mon:6789", err: `"https://mon:6789": ` + slash},
		"a nonce":                               {list: "10.0.0.1:6789/0", err: `"10.0.0.1:6789/0": ` + slash},
		"the second is wrong":                   {list: "a,b:x,c", err: `"b:x": "x" is not a port` + ports},
		"a v1 address":                          {list: "v1:10.0.0.1:6789", err: typed},
		"a v2 address of IPv6":                  {list: "v2:[2001:db8::1]:3300", err: typed},
		"a v2 address behind a plain one":       {list: "10.0.0.1:6789, v2:10.0.0.2:3300", err: typed},
		"an IPv4 address written as IPv6":       {list: "[::ffff:10.0.0.1]:6789", err: `"[::ffff:10.0.0.1]:6789": give the IPv4 address itself, 10.0.0.1, without brackets`},
		"brackets within brackets":              {list: "[[2001:db8::1]]", err: `"[[2001:db8::1]]": ` + brackets},
		"a bracket that was never opened":       {list: "2001:db8::1]:6789", err: `"2001:db8::1]:6789": ` + bare},
		"a bracket alone":                       {list: "[", err: `"[": ` + open},
		"a bracketed list of plain addresses":   {list: "[10.0.0.1:6789,10.0.0.2:6789]", err: `"[10.0.0.1:6789": ` + open},
		"a list in brackets of JSON":            {list: `["10.0.0.1:6789"]`, err: "\"[\\\"10.0.0.1:6789\\\"]\": " + brackets},
		"a port of 10 kB":                       {list: "mon:" + strings.Repeat("1", 10_000), err: `"mon:` + strings.Repeat("1", 96) + `…": "` + strings.Repeat("1", 100) + `…" is not a port` + ports},
		"a port with a blank before it":         {list: "mon: 6789", err: `"mon: 6789": ` + commas},
		"a port in digits of another script":    {list: "mon:６７８９", err: `"mon:６７８９": "６７８９" is not a port` + ports},
		"a comma of another script":             {list: "a，b", err: `"a，b": "a，b" is not a host name` + letters},
		"an invisible character":                {list: "mon\u200b", err: `"mon\u200b": "mon\u200b" is not a host name` + letters},
		"a colon too many":                      {list: "mon::6789", err: `"mon::6789": ` + bare},
		"two ports":                             {list: "10.0.0.1:3300:6789", err: `"10.0.0.1:3300:6789": ` + bare},
		"an IPv4 address with leading zeros":    {list: "010.000.000.001", err: `"010.000.000.001": "010.000.000.001" is not an IPv4 address`},
		"an IPv4 address with a dot at its end": {list: "10.0.0.1.", err: `"10.0.0.1.": "10.0.0.1." is not an IPv4 address`},
		"a dot":                                 {list: ".", err: `".": "." is not an IPv4 address`},
		"a wildcard":                            {list: "*.example.com", err: `"*.example.com": "*.example.com" is not a host name` + letters},
		"a variable of Ceph's":                  {list: "$host", err: `"$host": "$host" is not a host name` + letters},
		"a NUL":                                 {list: "a\x00", err: `"a\x00": "a\x00" is not a host name` + letters},
		"32 monitors":                           {list: strings.Join(many[:32], ","), err: "nodes accept at most 31 monitors, got 32"},
		"1000 monitors, which end librados":     {list: strings.Join(many, ","), err: "nodes accept at most 31 monitors, got 1000"},
		"a list of v2 and v1 addresses":         {list: "[v2:10.0.0.1:3300,v1:10.0.0.1:6789]", err: typed},
		"such a list as `ceph mon dump` prints": {list: "[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0]", err: typed},
		"two such lists":                        {list: "[v2:a:3300,v1:a:6789],[v2:b:3300,v1:b:6789]", err: typed},
		"such a list with a blank":              {list: "[ v1:10.0.0.1:6789]", err: typed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, class := newInputWorld(t), leastClass(map[string]string{"monitors": test.list})
			if test.err != "" {
				w.wantRejected(t, class, fixture.Claim(), inClass(invalid("monitors", storageclass.Truncate(test.list), test.err)))
				return
			}
			w.wantProvisioned(t, class, fixture.Claim(), monitorsAre(test.want...))
		})
	}
}
