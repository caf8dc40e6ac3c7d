//go:build e2e

package controller

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// surroundings is a provisioner with claims that it cannot serve.
type surroundings struct {
	*framework.Env
}

// refused creates a claim and waits for the event that reports why it cannot be served. The
// event must come within the timeout of the first attempt, which begins when the controller
// manager has assigned the claim to the provisioner. No image may be created.
func (s *surroundings) refused(t *testing.T, name, class string, phrases []string, options ...framework.ClaimOption) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim := s.Claim(t, name, class, options...)
	s.AwaitEvent(t, claim, framework.Timeout, "Provisioning")
	s.AwaitEvent(t, claim, operationTimeout, "ProvisioningFailed", append(phrases, class)...)
	s.WantImage(t, s.ImageFor(claim), false)
	if phase := s.GetClaim(t, name).Status.Phase; phase != corev1.ClaimPending {
		t.Errorf("the claim is %s", phase)
	}
	return claim
}

// replaceClass replaces a class, whose parameters cannot be changed.
func (s *surroundings) replaceClass(t *testing.T, name string, options ...framework.ClassOption) {
	t.Helper()
	s.DeleteClass(t, s.Namespace+"-"+name)
	s.Class(t, name, options...)
}

// bound waits until a refused claim is served.
func (s *surroundings) bound(t *testing.T, claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	t.Helper()
	volume := s.AwaitBound(t, claim)
	s.WantImage(t, framework.ImageOf(volume), true)
	return volume
}

// TestBadSurroundings: the claim's event says what to do, no image is created, and the claim is
// served after that is done.
func TestBadSurroundings(t *testing.T) {
	t.Parallel()
	s := &surroundings{newEnv(t)}
	start(t, s.Env, "-v=10") // errors are logged with more detail
	// All cases are in one call of Run, because the Env ends with its test.
	t.Run("cases", func(t *testing.T) {
		for name, run := range map[string]func(*testing.T, *surroundings, string){
			"wrong-key":            wrongKey,
			"missing-pool":         missingPool,
			"unreachable-monitors": unreachableMonitors,
			"unknown-monitor":      unknownMonitor,
			"three-mistakes":       threeMistakes,
			"missing-admin-secret": missingAdminSecret,
			"trailing-newline":     trailingNewline,
			"missing-caps":         missingCaps,
			"no-osd-caps":          noOSDCaps,
			"access-modes":         accessModes,
			"data-source":          dataSource,
			"missing-user-secret":  missingUserSecret,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, s, name)
			})
		}
	})
}

func wrongKey(t *testing.T, s *surroundings, name string) {
	s.PutSecret(t, name, s.Ceph.Run(t, "ceph-authtool", "--gen-print-key"))
	class := s.Class(t, name, framework.Parameter("adminSecretName", name))
	claim := s.refused(t, name, class, []string{
		"access denied by Ceph",
		"check that secret " + s.Namespace + "/" + name + " holds the key of client." + s.User,
	})
	s.PutSecret(t, name, s.Key.Reveal())
	s.bound(t, claim)
}

func missingPool(t *testing.T, s *surroundings, name string) {
	pool := s.Pool + "-late"
	s.PutSecret(t, name, s.NewUser(t, pool, pool).Reveal())
	class := s.Class(t, name, framework.Parameter("pool", pool),
		framework.Parameter("adminId", pool), framework.Parameter("adminSecretName", name))
	claim := s.refused(t, name, class, []string{
		"pool not found", "create pool " + pool + " (`ceph osd pool create`, `rbd pool init`) or name another pool in the class",
	})
	s.Ceph.CreatePool(t, pool)
	volume := s.bound(t, claim)
	// The volume must be deleted before the pool.
	s.DeleteClaim(t, name)
	s.AwaitVolumeGone(t, volume)
	s.WantImage(t, framework.ImageOf(volume), false)
}

func unreachableMonitors(t *testing.T, s *surroundings, name string) {
	class := s.Class(t, name, framework.Parameter("monitors", "127.0.0.1:1"))
	claim := s.refused(t, name, class, []string{
		"127.0.0.1:1", "Ceph cluster cannot be reached",
		"check the monitor addresses, the network between this provisioner and the monitors, and that a monitor is running",
	})
	s.replaceClass(t, name)
	s.bound(t, claim)
}

func unknownMonitor(t *testing.T, s *surroundings, name string) {
	class := s.Class(t, name, framework.Parameter("monitors", "mon.ceph.invalid:6789"))
	claim := s.refused(t, name, class, []string{
		"mon.ceph.invalid:6789", "no monitor address could be resolved", "check the host names of the monitors",
	})
	s.replaceClass(t, name)
	s.bound(t, claim)
}

func threeMistakes(t *testing.T, s *surroundings, name string) {
	class := s.Class(t, name, framework.Parameter("monitor", "10.0.0.1"), framework.Parameter("fsType", "ntfs"), framework.Parameter("imageFormat", "1"))
	claim := s.refused(t, name, class, []string{
		"replace it; the claim will be retried automatically",
		`parameters.monitor: Invalid value: "10.0.0.1": unknown parameter, allowed: monitors, adminId,`,
		`parameters.fsType: Unsupported value: "ntfs": supported values: "ext4", "xfs"`,
		`parameters.imageFormat: Unsupported value: "1": supported values: "2"`,
	})
	s.replaceClass(t, name)
	s.bound(t, claim)
}

func missingAdminSecret(t *testing.T, s *surroundings, name string) {
	class := s.Class(t, name, framework.Parameter("adminSecretName", name))
	claim := s.refused(t, name, class, []string{
		"admin secret " + s.Namespace + "/" + name + " does not exist", "create it with the output of `ceph auth get-key`",
	})
	s.PutSecret(t, name, s.Key.Reveal())
	s.bound(t, claim)
}

func trailingNewline(t *testing.T, s *surroundings, name string) {
	s.PutSecret(t, name, s.Key.Reveal()+"\n")
	class := s.Class(t, name, framework.Parameter("adminSecretName", name))
	claim := s.refused(t, name, class, []string{
		"admin secret " + s.Namespace + "/" + name, "white space or a line break", "with `printf` rather than `echo`",
	})
	s.PutSecret(t, name, s.Key.Reveal())
	s.bound(t, claim)
}

// missingCaps: the user has capabilities for another pool only.
func missingCaps(t *testing.T, s *surroundings, name string) {
	refusedByCaps(t, s, name, []string{"osd", "profile rbd pool=kube"}, []string{
		"access denied by Ceph", "its capabilities include mon 'profile rbd' and osd 'profile rbd pool=" + s.Pool + "'",
	})
}

// noOSDCaps: Ceph 16 denies access. Ceph 18 does not answer.
func noOSDCaps(t *testing.T, s *surroundings, name string) {
	refusedByCaps(t, s, name, nil, []string{"capabilities"})
}

func refusedByCaps(t *testing.T, s *surroundings, name string, caps, phrases []string) {
	user := s.User + "-" + name
	s.NewUser(t, user, s.Pool)
	s.Ceph.Run(t, "ceph", append([]string{"auth", "caps", "client." + user, "mon", "profile rbd"}, caps...)...)
	s.PutSecret(t, name, s.Ceph.Run(t, "ceph", "auth", "get-key", "client."+user))
	class := s.Class(t, name, framework.Parameter("adminId", user), framework.Parameter("adminSecretName", name))
	claim := s.refused(t, name, class, append(phrases, "`ceph auth get client."+user+"`"))
	s.Ceph.Run(t, "ceph", "auth", "caps", "client."+user, "mon", "profile rbd", "osd", "profile rbd pool="+s.Pool)
	volume := s.bound(t, claim)
	// The volume must be deleted before the user.
	s.DeleteClaim(t, name)
	s.AwaitVolumeGone(t, volume)
}

func accessModes(t *testing.T, s *surroundings, name string) {
	class := s.Class(t, name)
	modes := map[corev1.PersistentVolumeAccessMode]string{
		corev1.ReadOnlyMany:  "a new volume is empty, and nodes could never write to it",
		corev1.ReadWriteMany: "two nodes that write to a file system on an RBD image corrupt it",
	}
	if s.HasKubernetes(t, "1.27") { // earlier API servers reject such a claim themselves
		modes[corev1.ReadWriteOncePod] = "Kubernetes enforces it for CSI volumes only"
	}
	for mode, why := range modes {
		s.refused(t, name, class, []string{
			`spec.accessModes[0]: Invalid value: "` + string(mode) + `"`, why, "allowed: ReadWriteOnce, alone or with ReadOnlyMany",
		}, framework.Modes(mode))
		// The claim's access modes cannot be changed, but it can be deleted.
		s.DeleteClaim(t, name)
	}
}

func dataSource(t *testing.T, s *surroundings, name string) {
	class := s.Class(t, name)
	const why = "this provisioner clones PersistentVolumeClaims only"
	s.refused(t, name, class, []string{"source claim other does not exist in namespace " + s.Namespace}, framework.CloneOf("other"))
	s.DeleteClaim(t, name)
	s.refused(t, name, class, []string{`spec.dataSource: Invalid value: "VolumeSnapshot monday"`, why},
		func(claim *corev1.PersistentVolumeClaim) {
			claim.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ptr.To("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "monday"}
		})
	s.DeleteClaim(t, name)
	if !s.HasKubernetes(t, "1.24") {
		return // earlier API servers ignore dataSourceRef
	}
	// The API server copies it to dataSource.
	s.refused(t, name, class, []string{`spec.dataSource: Invalid value: "Backup monday"`, why},
		func(claim *corev1.PersistentVolumeClaim) {
			claim.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: ptr.To("backup.example.com"), Kind: "Backup", Name: "monday"}
		})
	s.DeleteClaim(t, name)
}

// missingUserSecret must not block a claim: the Secret is needed only when a node mounts the
// volume.
func missingUserSecret(t *testing.T, s *surroundings, name string) {
	class := s.Class(t, name, framework.Parameter("userSecretName", name))
	claim := s.Claim(t, name, class)
	event := s.AwaitEvent(t, claim, framework.Timeout, "InvalidUserSecret",
		"user secret "+s.Namespace+"/"+name+" does not exist", "nodes cannot map the volume")
	if event.Type != corev1.EventTypeWarning {
		t.Errorf("the event is of type %s", event.Type)
	}
	s.bound(t, claim)
}
