package lab

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"
)

// UpOptions describe the parts of a lab.
type UpOptions struct {
	// NoCeph and NoKubernetes omit a part. Nodes need Kubernetes.
	NoCeph, NoKubernetes bool
	// Ceph configures the main Ceph cluster; its Name must be empty.
	Ceph CephOptions
	// SecondCeph adds a second Ceph cluster.
	SecondCeph bool
	// CephVersion is HostCeph, RootCeph, or 0 for any version of the host's packages.
	CephVersion int
	// Nodes is the number of worker nodes.
	Nodes int
	// Images are docker-archive files to import on the nodes.
	Images []string
	// ControlPlane configures the control plane.
	ControlPlane ControlPlaneOptions
	// DownOnFailure stops the lab if its start fails.
	DownOnFailure bool
	// Packages are additional Debian packages to install.
	Packages []string
}

// Up removes the remains of a lab of this name and starts a new one. If it fails or ctx ends,
// the parts that run are kept for inspection until Down, unless DownOnFailure is set.
func (l *Lab) Up(ctx context.Context, opts UpOptions) error {
	if err := opts.validate(); err != nil {
		return err
	}
	if opts.Nodes > 0 && l.opts.Kubernetes != DefaultKubernetes {
		return fmt.Errorf("nodes need Kubernetes %s, and %s was requested: use --nodes 0", DefaultKubernetes, l.opts.Kubernetes)
	}
	if err := l.preflight(opts.Nodes); err != nil {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l.settings.Ceph, l.settings.CephVersion = opts.Ceph, opts.CephVersion
	return l.progress.Step(ctx, "starting the lab", func(ctx context.Context) error {
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
		return fmt.Errorf("%w\nall logs are in %s; `lab down %s` stops the parts that run", err, l.LogDir(), l.name)
	})
}

func (o *UpOptions) validate() error {
	var problems []error
	if o.Nodes < 0 || o.Nodes > maxNodes {
		problems = append(problems, fmt.Errorf("invalid number of nodes %d: want 0 to %d", o.Nodes, maxNodes))
	}
	if o.NoKubernetes && o.Nodes > 0 {
		problems = append(problems, errors.New("nodes need Kubernetes"))
	}
	if o.Ceph.Name != "" {
		problems = append(problems, fmt.Errorf("the main Ceph cluster has no name, but options name it %q", o.Ceph.Name))
	}
	problems = append(problems, checkCephVersion(o.CephVersion))
	for _, image := range o.Images {
		if info, err := os.Stat(image); err != nil {
			problems = append(problems, fmt.Errorf("container image: %w", err))
		} else if !info.Mode().IsRegular() {
			problems = append(problems, fmt.Errorf("container image %s is not a file", image))
		}
	}
	return errors.Join(problems...)
}

func (l *Lab) prepareFor(ctx context.Context, opts UpOptions) (err error) {
	if err := l.installPackages(ctx, append(packages(), opts.Packages...)); err != nil {
		return err
	}
	if l.settings.CephRoot, err = l.prepareCephRoot(ctx, opts.CephVersion); err != nil {
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
