package provisioner

import "fmt"

// text is a hint that does not depend on the context.
func text(hint string) func(errorContext) string {
	return func(errorContext) string { return hint }
}

func flatteningHint(errorContext) string {
	return "a clone is given all of its data where its source is itself a clone of a clone, and so on, or has very many clones; it goes on by itself"
}

func sourceHint(c errorContext) string {
	if c.source == nil {
		return ""
	}
	return fmt.Sprintf("the class must be for the Ceph cluster in which %s is, and client.%s have the right to its pool", c.source.ImageRef, c.cluster.User)
}

func fencingHint(c errorContext) string {
	return fmt.Sprintf("will be retried automatically; to fence the previous leader, client.%s needs mon 'profile rbd' (`ceph auth get client.%s`)",
		c.cluster.User, c.cluster.User)
}

func keyHint(c errorContext) string {
	return fmt.Sprintf("put the output of `ceph auth get-key client.%s` into secret %s", c.cluster.User, c.adminSecret)
}

func capabilitiesHint(c errorContext) string {
	pools := c.pool
	if c.dataPool != "" {
		pools += ", profile rbd pool=" + c.dataPool
	}
	if c.source != nil && c.source.Pool != c.pool {
		pools += ", profile rbd pool=" + c.source.Pool
	}
	return fmt.Sprintf("check that secret %s holds the key of client.%s and that its capabilities include "+
		"mon 'profile rbd' and osd 'profile rbd pool=%s' (`ceph auth get client.%s`)",
		c.adminSecret, c.cluster.User, pools, c.cluster.User)
}

func poolHint(c errorContext) string {
	if c.deleting {
		return fmt.Sprintf("the volume stays for as long as pool %s may come back; if it never will, "+
			"take the volume's finalizers away (`kubectl patch`) and delete it", c.pool)
	}
	return fmt.Sprintf("create pool %s (`ceph osd pool create`, `rbd pool init`) or name another in the class", c.pool)
}

func dataPoolHint(c errorContext) string {
	return fmt.Sprintf("create data pool %s or name another in the class", c.dataPool)
}

func overwritesHint(c errorContext) string {
	if c.dataPool == "" {
		return ""
	}
	return fmt.Sprintf("if data pool %s is erasure-coded, it needs `ceph osd pool set %s allow_ec_overwrites true`", c.dataPool, c.dataPool)
}

func spaceHint(c errorContext) string {
	return fmt.Sprintf("free space or raise the quota of pool %s (`ceph df`, `ceph osd pool get-quota`); deleted images are kept in its trash for the trashRetention of their class (`rbd trash ls --long %s`)", c.pool, c.pool)
}

func inUseHint(c errorContext) string {
	if c.cloning {
		return "a clone that is ReadOnlyMany, or annotated with " + annCloneUnmounted + ", is made when no node has its source mounted"
	}
	return "it is deleted when nobody uses it any more"
}

func lockHint(c errorContext) string {
	return fmt.Sprintf("remove the lock if nobody needs it (`rbd lock ls %s`, `rbd lock rm %s ID LOCKER`)", c.image, c.image)
}

func mirrorHint(c errorContext) string {
	return fmt.Sprintf("end its mirroring (`rbd mirror image disable %s`)", c.image)
}

func migrationHint(c errorContext) string {
	image := c.image
	if c.incompatible && c.source != nil {
		image = c.source.ImageRef
	}
	return fmt.Sprintf("end the migration (`rbd migration execute %s` and `rbd migration commit %s`, or `rbd migration abort %s`)", image, image, image)
}
