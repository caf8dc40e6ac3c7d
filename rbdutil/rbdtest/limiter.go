package rbdtest

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// refusing is a Limiter that refuses every operation, and records the last one.
type refusing struct {
	pool    string
	lengthy bool
}

var errRefused = errors.New("refused")

func (r *refusing) Run(_ context.Context, _ rbdutil.Cluster, pool string, lengthy bool, _ func() error) error {
	*r = refusing{pool, lengthy}
	return errRefused
}

// RunLimited checks that a Store runs all its operations by the Limiter that it was made with.
func RunLimited(t *testing.T, newStore func(rbdutil.Limiter) rbdutil.Store) {
	t.Helper()
	var limiter refusing
	s := newStore(&limiter)
	var c rbdutil.Cluster
	ref, seen := rbdutil.ImageRef{Pool: "kube", Name: "x"}, rbdutil.Image{ImageRef: rbdutil.ImageRef{Pool: "kube", Name: "x"}}
	parent, trashed := rbdutil.ImageRef{Pool: "parents", Name: "p"}, rbdutil.TrashedImage{ID: "1"}
	for name, operation := range map[string]struct {
		lengthy bool
		run     func(context.Context) error
	}{
		"Create":          {run: func(ctx context.Context) error { return s.Create(ctx, c, ref, rbdutil.Layout{}) }},
		"Get":             {run: func(ctx context.Context) error { _, err := s.Get(ctx, c, ref); return err }},
		"Update":          {run: func(ctx context.Context) error { return s.Update(ctx, c, seen, nil, 0) }},
		"List":            {run: func(ctx context.Context) error { _, err := s.List(ctx, c, "kube"); return err }},
		"HasChanges":      {true, func(ctx context.Context) error { _, err := s.HasChanges(ctx, c, ref, ""); return err }},
		"RemovePartial":   {run: func(ctx context.Context) error { return s.RemovePartial(ctx, c, ref) }},
		"MoveToTrash":     {run: func(ctx context.Context) error { return s.MoveToTrash(ctx, c, seen, rbdutil.Record{}, 0) }},
		"ListTrash":       {run: func(ctx context.Context) error { _, err := s.ListTrash(ctx, c, "kube"); return err }},
		"GetTrashed":      {run: func(ctx context.Context) error { _, err := s.GetTrashed(ctx, c, "kube", trashed); return err }},
		"RemoveFromTrash": {true, func(ctx context.Context) error { return s.RemoveFromTrash(ctx, c, "kube", trashed, rbdutil.Owner{}) }},
		"Restore":         {run: func(ctx context.Context) error { return s.Restore(ctx, c, "kube", trashed) }},
		"CreateSnapshot":  {run: func(ctx context.Context) error { return s.CreateSnapshot(ctx, c, ref, "s") }},
		"RemoveSnapshot":  {run: func(ctx context.Context) error { return s.RemoveSnapshot(ctx, c, rbdutil.SnapshotRef{Pool: "kube"}) }},
		"Clone":           {run: func(ctx context.Context) error { return s.Clone(ctx, c, parent, "s", ref, rbdutil.Layout{}) }},
		"CloneDepth":      {run: func(ctx context.Context) error { _, err := s.CloneDepth(ctx, c, ref); return err }},
		"Flatten":         {true, func(ctx context.Context) error { return s.Flatten(ctx, c, ref) }},
	} {
		limiter = refusing{}
		if err := operation.run(t.Context()); !errors.Is(err, errRefused) {
			t.Errorf("%s: error %v, want that of the limiter", name, err)
		}
		if diff := cmp.Diff(refusing{"kube", operation.lengthy}, limiter, cmp.AllowUnexported(refusing{})); diff != "" {
			t.Errorf("%s: the limiter got (-want +got):\n%s", name, diff)
		}
	}
}
