package lab

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
)

// conf renders ceph.conf. All paths that are below /var by default are in the lab's
// directories.
func (c *Ceph) conf(fsid string) string {
	return confSection("global", c.globalConf(fsid)) +
		confSection("mon", []string{
			"mon_data", c.runFile("mon.a"),
			"log_file", c.logPattern(),
			"mon_cluster_log_file", c.lab.logFile(c.daemon("cluster")),
		}) +
		confSection("mgr", []string{
			"mgr_data", c.file("mgr.x"),
			"keyring", c.Keyring("mgr.x"),
			"log_file", c.logPattern(),
		}) +
		confSection("osd", c.osdConf()) +
		confSection("client", []string{
			"keyring", c.Keyring("$name"),
			// Commands are short-lived and need no socket.
			"admin_socket", "",
			"log_file", "/dev/null",
		})
}

// confSection renders a section from alternating names and values.
func confSection(name string, settings []string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "[%s]\n", name)
	for pair := range slices.Chunk(settings, 2) {
		fmt.Fprintf(&text, "%s = %s\n", pair[0], pair[1])
	}
	return text.String()
}

func (c *Ceph) globalConf(fsid string) []string {
	return []string{
		"fsid", fsid,
		"mon_host", fmt.Sprintf("[v2:%s:%d,v1:%s:%d]", HostIP, c.opts.PortV2, HostIP, c.opts.Port),
		"public_network", HostIP + "/24",
		"run_dir", c.runFile(),
		"admin_socket", c.runFile("$name.$pid.asok"),
		"pid_file", c.runFile("$name.pid"),
		"crash_dir", c.file("crash"),
		"log_to_stderr", "false",
		"err_to_stderr", "true",
		"log_flush_on_exit", "false",
		// A single OSD must be enough, without health warnings.
		"osd_pool_default_size", "1",
		"osd_pool_default_min_size", "1",
		"osd_crush_chooseleaf_type", "0",
		"mon_allow_pool_size_one", "true",
		"mon_warn_on_pool_no_redundancy", "false",
		"mon_allow_pool_delete", "true",
		"osd_pool_default_pg_autoscale_mode", "off",
		"mon_max_pg_per_osd", "1000",
		// The free space of the machine's own disk does not matter to the tests.
		"mon_data_avail_warn", "2",
		"mon_data_avail_crit", "1",
		"auth_allow_insecure_global_id_reclaim", "false",
	}
}

func (c *Ceph) osdConf() []string {
	conf := []string{
		"osd_data", c.file("osd.0"),
		"keyring", c.Keyring("osd.0"),
		"log_file", c.logPattern(),
		"osd_memory_target", "1073741824",
		"osd_class_update_on_start", "false",
	}
	if c.opts.Durable {
		return append(conf,
			"osd_objectstore", "bluestore",
			"bluestore_block_size", fmt.Sprint(c.opts.OSDBytes),
			"bluestore_fsck_on_mkfs", "false")
	}
	return append(conf,
		"osd_objectstore", "memstore",
		"memstore_device_bytes", fmt.Sprint(c.opts.OSDBytes))
}

// cephEntity is a Ceph user or daemon with a key.
type cephEntity struct {
	name string
	caps [][2]string
}

func (c *Ceph) entities() []cephEntity {
	return []cephEntity{
		{"mon.", [][2]string{{"mon", "allow *"}}},
		{"client.admin", [][2]string{{"mon", "allow *"}, {"mgr", "allow *"}, {"osd", "allow *"}, {"mds", "allow *"}}},
		{"mgr.x", [][2]string{{"mon", "allow profile mgr"}, {"osd", "allow *"}, {"mds", "allow *"}}},
		{"osd.0", [][2]string{{"mon", "allow profile osd"}, {"mgr", "allow profile osd"}, {"osd", "allow *"}}},
		// The minimal capabilities of a client for the volumes of one pool.
		{"client." + c.opts.Pool, [][2]string{{"mon", "profile rbd"}, {"osd", "profile rbd pool=" + c.opts.Pool}}},
	}
}

// writeKeyrings writes a keyring for each entity and one with all of them. The monitor fills
// its database from the latter, which saves a command per entity.
func (c *Ceph) writeKeyrings() error {
	var all strings.Builder
	for _, entity := range c.entities() {
		key, err := newCephKey(time.Now())
		if err != nil {
			return err
		}
		text := keyring(entity, key)
		all.WriteString(text)
		if err := writeFile(c.Keyring(entity.name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return writeFile(c.file("all.keyring"), []byte(all.String()), 0o600)
}

func keyring(entity cephEntity, key string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "[%s]\n\tkey = %s\n", entity.name, key)
	for _, cap := range entity.caps {
		fmt.Fprintf(&text, "\tcaps %s = \"%s\"\n", cap[0], cap[1])
	}
	return text.String()
}

// newCephKey generates a secret like "ceph-authtool --gen-key": little-endian fields for the
// type (AES), the creation time and the length, then 16 bytes.
func newCephKey(now time.Time) (string, error) {
	key := make([]byte, 12, 28)
	binary.LittleEndian.PutUint16(key[0:], 1)
	binary.LittleEndian.PutUint32(key[2:], uint32(now.Unix()))
	binary.LittleEndian.PutUint32(key[6:], uint32(now.Nanosecond()))
	binary.LittleEndian.PutUint16(key[10:], 16)
	key = key[:28]
	if _, err := rand.Read(key[12:]); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(key), nil
}

func newUUID() (string, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", err
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16]), nil
}
