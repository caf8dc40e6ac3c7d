package rbdtest

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// errInterrupted is the error of all operations after the interruption.
var errInterrupted = errors.New("interrupted")

// interrupter runs a number of steps and fails all later ones. A step is a call that changes
// something; an Update has one step for the record and one for the size.
type interrupter struct {
	rbdutil.Store
	steps int
}

func (c *interrupter) step() error {
	if c.steps == 0 {
		return errInterrupted
	}
	c.steps--
	return nil
}

func (c *interrupter) Create(ctx context.Context, cl rbdutil.Cluster, ref rbdutil.ImageRef, l rbdutil.Layout) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.Create(ctx, cl, ref, l)
}

func (c *interrupter) Update(ctx context.Context, cl rbdutil.Cluster, seen rbdutil.Image, record *rbdutil.Record, size uint64) error {
	if record != nil {
		if err := c.step(); err != nil {
			return err
		}
	}
	if err := c.step(); err != nil {
		// The record was written before the interruption, the size was not set.
		return cmp.Or(c.Store.Update(ctx, cl, seen, record, seen.Size), err)
	}
	return c.Store.Update(ctx, cl, seen, record, size)
}

func (c *interrupter) MoveToTrash(ctx context.Context, cl rbdutil.Cluster, seen rbdutil.Image, record rbdutil.Record, keep time.Duration) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.MoveToTrash(ctx, cl, seen, record, keep)
}

func (c *interrupter) CreateSnapshot(ctx context.Context, cl rbdutil.Cluster, ref rbdutil.ImageRef, name string) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.CreateSnapshot(ctx, cl, ref, name)
}

func (c *interrupter) RemoveSnapshot(ctx context.Context, cl rbdutil.Cluster, snapshot rbdutil.SnapshotRef) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.RemoveSnapshot(ctx, cl, snapshot)
}

func (c *interrupter) Clone(ctx context.Context, cl rbdutil.Cluster, parent rbdutil.ImageRef, snapshot string, ref rbdutil.ImageRef, layout rbdutil.Layout) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.Clone(ctx, cl, parent, snapshot, ref, layout)
}

func (c *interrupter) Flatten(ctx context.Context, cl rbdutil.Cluster, ref rbdutil.ImageRef) error {
	if err := c.step(); err != nil {
		return err
	}
	return c.Store.Flatten(ctx, cl, ref)
}
