package rbdtest

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// errCut is what a caller gets of an operation after which it was interrupted.
var errCut = errors.New("cut off")

// cutter lets so many steps through and fails all later ones. A step is a call that
// changes something; an Update has one for the record and one for the size.
type cutter struct {
	rbdutil.Store
	steps int
}

func (c *cutter) step() error {
	if c.steps == 0 {
		return errCut
	}
	c.steps--
	return nil
}

func (c *cutter) Create(ctx context.Context, cl rbdutil.Cluster, ref rbdutil.ImageRef, l rbdutil.Layout) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.Create(ctx, cl, ref, l)
}

func (c *cutter) Update(ctx context.Context, cl rbdutil.Cluster, seen rbdutil.Image, record *rbdutil.Record, size uint64) error {
	if record != nil {
		if err := c.step(); err != nil {
			return err
		}
	}
	if err := c.step(); err != nil {
		// The record was written before; the size is the last.
		return cmp.Or(c.Store.Update(ctx, cl, seen, record, seen.Size), err)
	}
	return c.Store.Update(ctx, cl, seen, record, size)
}

func (c *cutter) MoveToTrash(ctx context.Context, cl rbdutil.Cluster, seen rbdutil.Image, record rbdutil.Record, keep time.Duration) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.MoveToTrash(ctx, cl, seen, record, keep)
}

func (c *cutter) CreateSnapshot(ctx context.Context, cl rbdutil.Cluster, ref rbdutil.ImageRef, name string) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.CreateSnapshot(ctx, cl, ref, name)
}

func (c *cutter) RemoveSnapshot(ctx context.Context, cl rbdutil.Cluster, snapshot rbdutil.SnapshotRef) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.RemoveSnapshot(ctx, cl, snapshot)
}

func (c *cutter) Clone(ctx context.Context, cl rbdutil.Cluster, parent rbdutil.ImageRef, snapshot string, ref rbdutil.ImageRef, layout rbdutil.Layout) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.Clone(ctx, cl, parent, snapshot, ref, layout)
}

func (c *cutter) Flatten(ctx context.Context, cl rbdutil.Cluster, ref rbdutil.ImageRef) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.Flatten(ctx, cl, ref)
}
