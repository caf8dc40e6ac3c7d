package provisioner

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v10/controller"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

// Images makes and deletes RBD images. All its methods may be repeated.
type Images interface {
	Ensure(ctx context.Context, c rbdutil.Cluster, spec rbdutil.ImageSpec) (rbdutil.Image, error)
	HandOut(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef) error
	Delete(ctx context.Context, c rbdutil.Cluster, ref rbdutil.ImageRef, expect rbdutil.Expectation) error
}

// Trash is where deleted images go.
type Trash interface {
	// Purge empties the trash of a pool, in the background.
	Purge(ctx context.Context, c rbdutil.Cluster, pool string)
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
	name      string
	clusterID string
	timeout   time.Duration
	images    Images
	trash     Trash
	secrets   corev1client.SecretsGetter
	classes   storagelisters.StorageClassLister
	nodes     corelisters.NodeLister
	claims    corelisters.PersistentVolumeClaimLister
	volumes   corelisters.PersistentVolumeLister
	events    record.EventRecorder
}

var (
	_ controller.Provisioner      = (*Provisioner)(nil)
	_ controller.BlockProvisioner = (*Provisioner)(nil)
)

// New returns a Provisioner.
func New(c Config) *Provisioner {
	return &Provisioner{
		name: c.Name, clusterID: c.ClusterID, timeout: c.Timeout,
		images: c.Images, trash: c.Trash, secrets: c.Secrets, classes: c.Classes, nodes: c.Nodes,
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
	params, spec, source, err := p.request(opts)
	if err != nil {
		if sourceName(opts.PVC) != "" && p.isGone(opts.PVC) {
			// Nobody waits for the clone any more, and of a source that is gone none can be
			// made. What was begun of it is for the Sweeper.
			return nil, controller.ProvisioningFinished, err
		}
		return nil, stateOf(err), err
	}
	key, err := p.adminKey(ctx, params.adminSecret)
	if err != nil {
		return nil, stateOf(err), err
	}
	cluster := rbdutil.Cluster{Monitors: params.monitors, User: params.adminID, Key: key}
	img, err := p.images.Ensure(ctx, cluster, spec)
	if err != nil {
		if errors.Is(err, rbdutil.ErrImageExists) {
			// An image on its way into the trash has the name; only the end of that frees it.
			p.trash.Purge(ctx, cluster, params.pool)
		}
		return nil, stateOf(err), explain(err, circumstances{
			cluster: cluster, pool: params.pool, dataPool: params.layout.DataPool, source: spec.Source, adminSecret: params.adminSecret,
			cloning: spec.Source != nil,
		})
	}
	klog.FromContext(ctx).V(2).Info("Image is ready", "claim", klog.KObj(opts.PVC), "image", img.ImageRef, "bytes", img.Size)
	p.warnOfUserSecret(ctx, opts.PVC, params)
	volume := volumeFor(opts, params, img)
	if source != nil {
		source.adapt(volume, opts.PVC, img.SourceSize())
	}
	return volume, controller.ProvisioningFinished, nil
}

// request turns class and claim into an image, or says all that is wrong with both.
func (p *Provisioner) request(opts controller.ProvisionOptions) (parameters, rbdutil.ImageSpec, *source, error) {
	params, errs := parseParameters(opts.StorageClass.Parameters)
	if len(errs) > 0 {
		return parameters{}, rbdutil.ImageSpec{}, nil, refusef("StorageClass %s (replace it; the claim then goes on by itself): %w",
			opts.StorageClass.Name, errs.ToAggregate())
	}
	claim := opts.PVC
	size, errs := sizeOf(claim, params.layout)
	if len(errs) > 0 {
		return parameters{}, rbdutil.ImageSpec{}, nil, refusef("claim: %w", errs.ToAggregate())
	}
	source, err := p.sourceOf(claim, params, size)
	if err != nil {
		return parameters{}, rbdutil.ImageSpec{}, nil, err
	}
	spec := rbdutil.ImageSpec{
		ImageRef: rbdutil.ImageRef{Pool: params.pool, Name: imagePrefix + string(claim.UID)},
		Layout:   params.layout,
		Size:     size,
		Owner: rbdutil.Owner{
			ClaimUID: string(claim.UID), ClaimNamespace: claim.Namespace, ClaimName: claim.Name,
			VolumeName: opts.PVName, Provisioner: p.name, ClusterID: p.clusterID,
		},
	}
	if source != nil {
		spec.Source = &rbdutil.Source{
			ImageRef: source.image(), Expect: p.expectationFor(source.volume), Unmounted: source.unmounted(claim),
		}
	}
	return params, spec, source, nil
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
