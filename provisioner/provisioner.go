package provisioner

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Images makes and deletes RBD images. All its methods may be repeated.
type Images interface {
	Ensure(ctx context.Context, c rbdutil.Cluster, spec rbdutil.ImageSpec) (rbdutil.Image, error)
	ResumeClone(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, owner rbdutil.Owner) (rbdutil.Image, error)
	Delete(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, precondition rbdutil.Precondition, keep time.Duration) error
}

// Trash is where deleted images are moved to.
type Trash interface {
	// Clean removes from the trash of a pool, in the background, what may be removed.
	Clean(ctx context.Context, c rbdutil.Cluster, pool string)
	// CleanAfter does so when the volume is gone: until then its image can be restored.
	CleanAfter(volume string, c rbdutil.Cluster, pool string)
}

// Config is what a Provisioner needs of its surroundings.
type Config struct {
	// Name is the provisioner's name in StorageClasses.
	Name string
	// ClusterID tells this Kubernetes cluster's images from another's in one pool.
	ClusterID string
	// Timeout bounds one Provision or Delete.
	Timeout time.Duration

	Images  Images
	Trash   Trash
	Secrets corev1client.SecretsGetter
	// Live asks the API server itself, where the caches may lag behind.
	Live LiveVolumesAndClaims
	// Confirmed is called with a volume that is to be deleted, as the API server has it. It
	// may be deleted only while it is unchanged since.
	Confirmed func(volume *corev1.PersistentVolume)
	// Index is the cache of PersistentVolumes, with VolumeIndexers.
	Index cache.Indexer
	// Identities are those of the retired rbd-provisioner whose volumes are served, beside
	// Name.
	Identities []string
	// Classes are asked only for volumes that do not carry what deletion needs.
	Classes storagelisters.StorageClassLister
	// Nodes tell which volumes they have in use.
	Nodes corelisters.NodeLister
	// Claims and Volumes are what clones are made of.
	Claims  corelisters.PersistentVolumeClaimLister
	Volumes corelisters.PersistentVolumeLister
	Events  record.EventRecorder
}

// Provisioner serves the claims of its name. It keeps no state of its own.
type Provisioner struct {
	name       string
	clusterID  string
	timeout    time.Duration
	images     Images
	trash      Trash
	secrets    corev1client.SecretsGetter
	live       LiveVolumesAndClaims
	confirmed  func(*corev1.PersistentVolume)
	index      cache.Indexer
	identities []string
	classes    storagelisters.StorageClassLister
	nodes      corelisters.NodeLister
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
	events     record.EventRecorder
}

var (
	_ controller.Provisioner      = (*Provisioner)(nil)
	_ controller.BlockProvisioner = (*Provisioner)(nil)
)

// New returns a Provisioner.
func New(c Config) *Provisioner {
	if c.Confirmed == nil {
		c.Confirmed = func(*corev1.PersistentVolume) {}
	}
	return &Provisioner{
		name: c.Name, clusterID: c.ClusterID, timeout: c.Timeout,
		images: c.Images, trash: c.Trash, secrets: c.Secrets, live: c.Live, confirmed: c.Confirmed, index: c.Index,
		identities: c.Identities, classes: c.Classes, nodes: c.Nodes,
		claims: c.Claims, volumes: c.Volumes, events: c.Events,
	}
}

// SupportsBlock implements controller.BlockProvisioner: an image is a block device.
func (p *Provisioner) SupportsBlock(context.Context) bool { return true }

// Provision implements controller.Provisioner: it makes the claim's image, or finds
// the one that an earlier call made, and returns the volume that describes it.
func (p *Provisioner) Provision(ctx context.Context, opts controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	params, spec, err := p.request(opts)
	if err != nil {
		return nil, stateOf(err), err
	}
	key, err := p.adminKey(ctx, params.adminSecret)
	if err != nil {
		return nil, stateOf(err), err
	}
	cluster := rbdutil.Cluster{Monitors: params.monitors, User: params.adminID, Key: key}
	img, state, err := p.imageFor(ctx, cluster, opts.PVC, params, spec)
	if err != nil {
		return nil, state, err
	}
	klog.FromContext(ctx).V(2).Info("Image is ready", "claim", klog.KObj(opts.PVC), "image", img.ImageRef, "bytes", img.Size)
	p.warnOfUserSecret(ctx, opts.PVC, params)
	volume := volumeFor(opts, params, img)
	if img.Record.Source != nil {
		adaptClone(volume, opts.PVC, *img.Record.Source)
	}
	return volume, controller.ProvisioningFinished, nil
}

// imageFor makes the claim's image, or finds it.
func (p *Provisioner) imageFor(ctx context.Context, cluster rbdutil.Cluster, claim *corev1.PersistentVolumeClaim, params parameters, spec rbdutil.ImageSpec) (rbdutil.Image, controller.ProvisioningState, error) {
	known := circumstances{
		cluster: cluster, pool: params.pool, dataPool: params.layout.DataPool, image: spec.ImageRef,
		adminSecret: params.adminSecret, cloning: sourceName(claim) != "",
	}
	source, err := p.sourceOf(claim, params, spec.Size)
	if err != nil {
		return p.resumeClone(ctx, cluster, claim, spec, known, err)
	}
	if source != nil {
		spec.Source = &rbdutil.Source{
			ImageRef: source.image(), Volume: source.recorded(),
			Precondition: p.preconditionFor(source.volume), Unmounted: source.unmounted(claim),
		}
		known.source = spec.Source
	}
	img, err := p.images.Ensure(ctx, cluster, spec)
	if err != nil {
		if errors.Is(err, rbdutil.ErrImageExists) {
			// An image on its way to the trash has the name. Only the end of that frees it.
			p.trash.Clean(ctx, cluster, params.pool)
		}
		return rbdutil.Image{}, stateOf(err), explain(err, known)
	}
	return img, controller.ProvisioningFinished, nil
}

// resumeClone finishes a clone whose source cannot be used any more, if it was begun in
// time. If it was not, the error is why the source cannot be used.
func (p *Provisioner) resumeClone(ctx context.Context, cluster rbdutil.Cluster, claim *corev1.PersistentVolumeClaim, spec rbdutil.ImageSpec, known circumstances, why error) (rbdutil.Image, controller.ProvisioningState, error) {
	img, err := p.images.ResumeClone(ctx, cluster, spec.ImageRef, spec.Owner)
	switch {
	case err == nil:
		return img, controller.ProvisioningFinished, nil
	case errors.Is(err, rbdutil.ErrIncomplete):
		return rbdutil.Image{}, stateOf(err), explain(err, known)
	case errors.Is(err, rbdutil.ErrImageNotFound) && p.isGone(claim):
		// Nobody waits for the clone any more, and none can be made. What was begun of it is
		// removed as an orphan.
		return rbdutil.Image{}, controller.ProvisioningFinished, why
	}
	return rbdutil.Image{}, stateOf(why), why
}

// request turns class and claim into an image, or says all that is wrong with both. The
// source of a clone is for sourceOf.
func (p *Provisioner) request(opts controller.ProvisionOptions) (parameters, rbdutil.ImageSpec, error) {
	params, errs := parseParameters(opts.StorageClass.Parameters)
	if len(errs) > 0 {
		return parameters{}, rbdutil.ImageSpec{}, refusef("StorageClass %s (replace it; the claim then goes on by itself): %w",
			opts.StorageClass.Name, errs.ToAggregate())
	}
	claim := opts.PVC
	size, errs := sizeOf(claim, params.layout)
	if len(errs) > 0 {
		return parameters{}, rbdutil.ImageSpec{}, refusef("claim: %w", errs.ToAggregate())
	}
	return params, rbdutil.ImageSpec{
		ImageRef: rbdutil.ImageRef{Pool: params.pool, Name: rbdutil.ImageName(string(claim.UID))},
		Layout:   params.layout,
		Size:     size,
		Owner: rbdutil.Owner{
			ClaimUID: string(claim.UID), ClaimNamespace: claim.Namespace, ClaimName: claim.Name,
			VolumeName: opts.PVName, Provisioner: p.name, ClusterID: p.clusterID,
		},
	}, nil
}

// warnOfUserSecret tells the claim's owner now what would otherwise come out when a
// node mounts the volume.
func (p *Provisioner) warnOfUserSecret(ctx context.Context, claim *corev1.PersistentVolumeClaim, params parameters) {
	ref := params.userSecret
	if ref.Name == "" {
		return
	}
	if ref.Namespace == "" {
		ref.Namespace = claim.Namespace
	}
	if doubt := p.userSecretDoubt(ctx, ref); doubt != "" {
		p.events.Event(claim, corev1.EventTypeWarning, reasonUserSecret, doubt)
	}
}
