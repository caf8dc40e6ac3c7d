package lab

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"
)

// UpOptions say what a lab consists of.
type UpOptions struct {
	// NoCeph and NoKubernetes leave a part out. Without Kubernetes there are no
	// nodes either.
	NoCeph, NoKubernetes bool
	// Ceph changes the main Ceph cluster; its Name stays empty.
	Ceph CephOptions
	// SecondCeph adds a second Ceph cluster.
	SecondCeph bool
	// Nodes is how many nodes there are, none being a control plane alone.
	Nodes int
	// Images are docker-archive files of the container images that the nodes have.
	Images []string
	// ControlPlane changes the control plane.
	ControlPlane ControlPlaneOptions
	// DownOnFailure takes the lab down again when it does not come up.
	DownOnFailure bool
	// Packages are Debian packages to install beside those that the lab needs.
	Packages []string
}

// Up takes down what is left of a lab of this name and brings up a new one. When
// it fails or ctx ends, what is up by then stays, for a look at it, until Down;
// unless DownOnFailure is set.
func (l *Lab) Up(ctx context.Context, opts UpOptions) error {
	if err := opts.validate(); err != nil {
		return err
	}
	if err := l.preflight(opts.Nodes); err != nil {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l.settings.Ceph = opts.Ceph
	return l.progress.Step(ctx, "bringing up the lab", func(ctx context.Context) error {
		if err := l.down(); err != nil {
			return err
		}
		if err := l.prepareFor(ctx, opts); err != nil {
			return err
		}
		if err := l.create(); err != nil {
			return err
		}
		err := l.start(ctx, opts)
		switch {
		case err == nil:
			return nil
		case opts.DownOnFailure:
			return errors.Join(fmt.Errorf("%w\nall logs are in %s", err, l.LogDir()), l.down())
		}
		return fmt.Errorf("%w\nwhat is up stays so until it is taken down; all logs are in %s", err, l.LogDir())
	})
}

func (o *UpOptions) validate() error {
	var problems []error
	if o.Nodes < 0 || o.Nodes > maxNodes {
		problems = append(problems, fmt.Errorf("%d nodes: want 0 to %d", o.Nodes, maxNodes))
	}
	if o.NoKubernetes && o.Nodes > 0 {
		problems = append(problems, errors.New("nodes need Kubernetes"))
	}
	if o.Ceph.Name != "" {
		problems = append(problems, fmt.Errorf("the main Ceph cluster has no name, and is not called %q", o.Ceph.Name))
	}
	for _, image := range o.Images {
		if info, err := os.Stat(image); err != nil {
			problems = append(problems, fmt.Errorf("container image: %w", err))
		} else if !info.Mode().IsRegular() {
			problems = append(problems, fmt.Errorf("container image %s is not a file", image))
		}
	}
	return errors.Join(problems...)
}

func (l *Lab) prepareFor(ctx context.Context, opts UpOptions) error {
	if err := l.installPackages(ctx, append(packages(), opts.Packages...)); err != nil {
		return err
	}
	if opts.NoKubernetes {
		return nil
	}
	return l.buildKubernetes(ctx)
}

func (l *Lab) start(ctx context.Context, opts UpOptions) error {
	group, ctx := errgroup.WithContext(ctx)
	if !opts.NoCeph {
		group.Go(func() error { return l.Ceph().Start(ctx) })
	}
	if opts.SecondCeph {
		group.Go(func() error { return l.SecondCeph().Start(ctx) })
	}
	if !opts.NoKubernetes {
		group.Go(func() error { return l.startKubernetes(ctx, opts) })
	}
	return group.Wait()
}

func (l *Lab) startKubernetes(ctx context.Context, opts UpOptions) error {
	var disk string
	group, parts := errgroup.WithContext(ctx)
	group.Go(func() error { return l.ControlPlane().Start(parts, opts.ControlPlane) })
	if opts.Nodes > 0 {
		group.Go(func() (err error) {
			disk, err = l.nodeDisk(parts, opts.Images)
			return err
		})
	}
	if err := group.Wait(); err != nil || opts.Nodes == 0 {
		return err
	}
	return l.startNodes(ctx, opts.Nodes, disk)
}
