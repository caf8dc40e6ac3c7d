package provisioner

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/provisioner/storageclass"
	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Images creates and deletes RBD images. All methods are idempotent.
type Images interface {
	Ensure(ctx context.Context, c rbdutil.Cluster, spec rbdutil.ImageSpec) (rbdutil.Image, error)
	ResumeClone(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, owner rbdutil.Owner) (rbdutil.Image, error)
	Delete(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, precondition rbdutil.Precondition, keep time.Duration) error
}

// Trash removes deleted images from the trash of their pool.
type Trash interface {
	// Clean starts to remove images from the trash of a pool, and returns at once.
	Clean(ctx context.Context, c rbdutil.Cluster, pool string)
	// CleanAfter does so when the volume is gone. Until then its image can be restored.
	CleanAfter(volume string, c rbdutil.Cluster, pool string)
}

// LiveVolumesAndClaims reads from the API server where the caches may be stale.
type LiveVolumesAndClaims interface {
	corev1client.PersistentVolumesGetter
	corev1client.PersistentVolumeClaimsGetter
}

// Config configures a Provisioner.
type Config struct {
	Clusters Clusters
	// Timeout limits one Provision or Delete.
	Timeout time.Duration

	Images Images
	Trash  Trash
	Live   LiveVolumesAndClaims
	// Confirmed, if set, is called with a volume that is about to be deleted, as the API
	// server has it. The volume may be deleted only if it does not change after that.
	Confirmed func(volume *corev1.PersistentVolume)
	// Index is the cache of PersistentVolumes, with pvindex.Indexers.
	Index cache.Indexer
	// Nodes report the volumes that they use.
	Nodes corelisters.NodeLister
	// Claims and Volumes are the sources of clones.
	Claims  corelisters.PersistentVolumeClaimLister
	Volumes corelisters.PersistentVolumeLister
	Events  record.EventRecorder
}

// Provisioner creates and deletes the images of claims. It is stateless.
type Provisioner struct{ Config }

var (
	_ controller.Provisioner      = (*Provisioner)(nil)
	_ controller.BlockProvisioner = (*Provisioner)(nil)
)

// New returns a Provisioner.
func New(c Config) *Provisioner {
	if c.Confirmed == nil {
		c.Confirmed = func(*corev1.PersistentVolume) {}
	}
	return &Provisioner{c}
}

// SupportsBlock implements controller.BlockProvisioner: an image is a block device.
func (p *Provisioner) SupportsBlock(context.Context) bool { return true }

// Provision implements controller.Provisioner. It creates the image of the claim, or
// finds the image of an earlier call, and returns the PersistentVolume for it.
func (p *Provisioner) Provision(ctx context.Context, opts controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	volume, err := p.provision(ctx, opts)
	if err != nil {
		return nil, provisioningState(err), err
	}
	return volume, controller.ProvisioningFinished, nil
}

func (p *Provisioner) provision(ctx context.Context, opts controller.ProvisionOptions) (*corev1.PersistentVolume, error) {
	params, errs := storageclass.Parse(opts.StorageClass.Parameters)
	if len(errs) > 0 {
		return nil, preflightf("StorageClass %s is invalid (replace it; the claim will be retried automatically): %w", opts.StorageClass.Name, errs.ToAggregate())
	}
	req, errs := parseClaim(opts.PVC, params.Layout)
	req.volume = opts.PVName
	if len(errs) > 0 {
		return nil, preflightf("claim: %w", errs.ToAggregate())
	}
	cluster, err := p.Clusters.ForClass(ctx, params)
	if err != nil {
		return nil, err
	}
	img, err := p.ensureImage(ctx, cluster, params, req)
	if err != nil {
		return nil, err
	}
	klog.FromContext(ctx).V(2).Info("Provisioned image", "claim", klog.KObj(opts.PVC), "image", img.ImageRef, "bytes", img.Size)
	p.warnOfUserSecret(ctx, opts.PVC, params.UserSecret)
	return newVolume(opts.StorageClass, params, req, img), nil
}

// ensureImage creates the image of a claim, or finds it.
func (p *Provisioner) ensureImage(ctx context.Context, cluster rbdutil.Cluster, params storageclass.Parameters, req request) (rbdutil.Image, error) {
	spec := rbdutil.ImageSpec{
		ImageRef: rbdutil.ImageRef{Pool: params.Pool, Name: rbdutil.ImageName(string(req.uid))},
		Layout:   params.Layout,
		Size:     req.size,
		Owner:    req.owner(p.Clusters.Maker()),
	}
	known := errorContext{
		cluster: cluster, pool: params.Pool, dataPool: params.Layout.DataPool, image: spec.ImageRef,
		adminSecret: params.AdminSecret, cloning: req.source != "",
	}
	source, err := p.cloneSource(params, req)
	if err != nil {
		return p.resumeClone(ctx, spec, req, known, err)
	}
	spec.Source, known.source = source, source
	img, err := p.Images.Ensure(ctx, cluster, spec)
	if errors.Is(err, rbdutil.ErrImageExists) {
		// An image that is being moved to the trash may still have the name. The name is
		// free when the move is complete.
		p.Trash.Clean(ctx, cluster, params.Pool)
	}
	return img, withHint(err, known)
}
