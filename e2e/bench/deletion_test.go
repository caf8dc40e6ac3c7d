//go:build e2e

package bench

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// rounds is the number of measurements of each size. The sizes alternate, so that other
// activity affects all of them equally, especially the removal of earlier images from the
// trash.
const rounds = 7

// series are the times of one provisioner at one size.
type series struct {
	who, size string
	class     string
	times     []time.Duration
}

func (s *series) median() time.Duration {
	sorted := slices.Sorted(slices.Values(s.times))
	return sorted[len(sorted)/2]
}

// TestDeletion measures the time from the deletion of a claim to the deletion of its volume.
func TestDeletion(t *testing.T) {
	e := framework.NewForProcess(t)
	framework.Start(t, e)
	ours := e.Class(t, "ours")
	theirs := e.Class(t, "in-tree", func(class *storagev1.StorageClass) { class.Provisioner = "kubernetes.io/rbd" })
	all := []*series{
		{who: "rbd-provisioner", size: "1Gi", class: ours},
		{who: "rbd-provisioner", size: "100Gi", class: ours},
		{who: "rbd-provisioner", size: "10Ti", class: ours},
		{who: "kubernetes.io/rbd", size: "1Gi", class: theirs},
		{who: "kubernetes.io/rbd", size: "100Gi", class: theirs},
	}
	for round := range rounds {
		for i, s := range all {
			s.times = append(s.times, deletion(t, e, s, fmt.Sprintf("claim-%d-%d", round, i)))
		}
		_, _ = fmt.Fprintf(os.Stdout, "round %d of %d\n", round+1, rounds)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "deletion by\tsize\tmin\tmedian\tmax\tmedian, to our 1Gi")
	for _, s := range all {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%.2f\n", s.who, s.size, short(slices.Min(s.times)), short(s.median()), short(slices.Max(s.times)),
			float64(s.median())/float64(all[0].median()))
	}
	if err := table.Flush(); err != nil {
		t.Fatal(err)
	}
}

func short(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// deletion creates a volume, deletes its claim and returns the time until the volume is
// deleted.
func deletion(t *testing.T, e *framework.Env, s *series, name string) time.Duration {
	t.Helper()
	volume := e.AwaitBound(t, e.Claim(t, name, s.class, framework.Size(s.size)))
	watcher, err := e.Client.CoreV1().PersistentVolumes().Watch(t.Context(), metav1.SingleObject(volume.ObjectMeta))
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	begun := time.Now()
	if err := e.Client.CoreV1().PersistentVolumeClaims(e.Namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	timeout := time.After(5 * time.Minute)
	for {
		select {
		case event, open := <-watcher.ResultChan():
			switch {
			case !open || event.Type == watch.Error:
				t.Fatalf("watch of volume %s: %v", volume.Name, event.Object)
			case event.Type == watch.Deleted:
				return time.Since(begun)
			}
			if now, ok := event.Object.(*corev1.PersistentVolume); ok && now.Status.Phase == corev1.VolumeFailed {
				t.Fatalf("volume %s failed: %s", now.Name, now.Status.Message)
			}
		case <-timeout:
			t.Fatalf("volume %s was not deleted", volume.Name)
		}
	}
}
