package framework

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
)

// logLines is the number of lines of each log in a report.
const logLines = 60

// lineLength is the maximum length of these lines.
const lineLength = 300

// LabLogs returns the directory of the logs of the lab, or "" outside a lab.
func LabLogs() string {
	lab := os.Getenv("RBD_LAB")
	if lab == "" {
		return ""
	}
	return filepath.Join("/var/tmp/rbd-lab", lab, "logs")
}

// report logs the state of the test's objects.
func (e *Env) report(t *testing.T) {
	ctx, cancel := cleanupContext()
	defer cancel()
	var text strings.Builder
	e.reportObjects(ctx, &text)
	e.reportEvents(ctx, &text)
	out, err := e.Ceph.Try(ctx, "rbd", "ls", "--long", e.Pool)
	section(&text, "images in pool "+e.Pool, string(out), err)
	e.mu.Lock()
	logs := e.logs
	e.mu.Unlock()
	for _, log := range logs {
		section(&text, "end of "+log.name, tail(log.read(ctx), logLines), nil)
	}
	if folder := LabLogs(); folder != "" {
		fmt.Fprintf(&text, "--- other logs are in %s\n", folder)
	}
	t.Logf("state of namespace %s:\n%s", e.Namespace, text.String())
}

func section(text *strings.Builder, title, content string, err error) {
	fmt.Fprintf(text, "--- %s\n", title)
	if err != nil {
		fmt.Fprintf(text, "%v\n", err)
	}
	if content = strings.TrimRight(content, "\n"); content != "" {
		text.WriteString(content + "\n")
	}
}

func (e *Env) reportObjects(ctx context.Context, text *strings.Builder) {
	claims, err := e.Claims(ctx)
	section(text, "claims", lines(claims, describeClaim), err)
	volumes, err := e.Volumes(ctx)
	section(text, "volumes", lines(volumes, describeVolume), err)
	pods, err := e.Client.CoreV1().Pods(e.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		section(text, "pods", "", err)
		return
	}
	section(text, "pods", lines(pods.Items, describePod), nil)
}

func (e *Env) reportEvents(ctx context.Context, text *strings.Builder) {
	list, err := e.Client.CoreV1().Events(e.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		section(text, "events", "", err)
		return
	}
	sortEvents(list.Items)
	section(text, "events", lines(list.Items, eventLine), nil)
	volumes, err := e.Volumes(ctx)
	for _, volume := range volumes {
		events, err := e.Events(ctx, &volume)
		section(text, "events of volume "+volume.Name, lines(events, eventLine), err)
	}
	if err != nil {
		section(text, "events of volumes", "", err)
	}
}

func describeClaim(claim corev1.PersistentVolumeClaim) string {
	return fmt.Sprintf("%s: %s, uid %s, class %s, volume %q, deleted: %t", claim.Name, claim.Status.Phase, claim.UID,
		storagehelpers.GetPersistentVolumeClaimClass(&claim), claim.Spec.VolumeName, claim.DeletionTimestamp != nil)
}

func describeVolume(volume corev1.PersistentVolume) string {
	ref := ptr.Deref(volume.Spec.ClaimRef, corev1.ObjectReference{})
	source := ptr.Deref(volume.Spec.RBD, corev1.RBDPersistentVolumeSource{})
	return fmt.Sprintf("%s: %s, claim %s, %s, image %s/%s at %s, deleted: %t, finalizers %v", volume.Name, volume.Status.Phase, ref.Name,
		volume.Spec.PersistentVolumeReclaimPolicy, source.RBDPool, source.RBDImage, source.CephMonitors,
		volume.DeletionTimestamp != nil, volume.Finalizers)
}

func describePod(pod corev1.Pod) string {
	text := fmt.Sprintf("%s: %s on %q, deleted: %t", pod.Name, pod.Status.Phase, pod.Spec.NodeName, pod.DeletionTimestamp != nil)
	for _, condition := range pod.Status.Conditions {
		if condition.Status != corev1.ConditionTrue {
			text += fmt.Sprintf(", not %s: %s %s", condition.Type, condition.Reason, condition.Message)
		}
	}
	for _, status := range pod.Status.ContainerStatuses {
		switch {
		case status.State.Waiting != nil:
			text += fmt.Sprintf(", %s waits: %s %s", status.Name, status.State.Waiting.Reason, status.State.Waiting.Message)
		case status.State.Terminated != nil:
			text += fmt.Sprintf(", %s ended: %d %s", status.Name, status.State.Terminated.ExitCode, status.State.Terminated.Message)
		}
	}
	return text
}

func lines[T any](items []T, describe func(T) string) string {
	var text strings.Builder
	for _, item := range items {
		text.WriteString(describe(item) + "\n")
	}
	return text.String()
}

// tail returns the last lines of a text, shortened to lineLength.
func tail(text string, n int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	all = all[max(0, len(all)-n):]
	for i, line := range all {
		if len(line) > lineLength {
			all[i] = line[:lineLength] + "…"
		}
	}
	return strings.Join(all, "\n")
}
