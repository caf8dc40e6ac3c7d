package prepare

import (
	"os"
	"path/filepath"
)

// CacheDir returns the default cache directory of the lab and its images.
func CacheDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "/var/cache" // HOME is not set
	}
	return filepath.Join(cache, "rbd-provisioner-lab")
}
