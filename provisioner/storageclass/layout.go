package storageclass

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/rbd-provisioner/rbd-provisioner/rbdutil"
)

func (r *reader) features() rbdutil.Features {
	value := r.values["imageFeatures"]
	if strings.TrimSpace(value) == "" {
		return rbdutil.Layering
	}
	features, err := rbdutil.ParseFeatures(value)
	if err != nil {
		r.fail("imageFeatures", value, fmt.Sprintf("%s, allowed: %s", Truncate(err.Error()), strings.Join(rbdutil.Supported(), ", ")))
	}
	return features
}

// shortQuantity excludes exponents: ParseQuantity computes ten to the power of any
// exponent, which can take minutes.
var shortQuantity = regexp.MustCompile(`^-?[0-9.]{1,12}[A-Za-z]{0,2}$`)

func parseShortQuantity(text string) (resource.Quantity, error) {
	if shortQuantity.MatchString(text) {
		if quantity, err := resource.ParseQuantity(text); err == nil {
			return quantity, nil
		}
	}
	return resource.Quantity{}, errors.New("not a quantity such as 4Mi")
}

func (r *reader) objectSize() uint64 {
	value := r.get("objectSize")
	if value == "" {
		return 0
	}
	quantity, err := parseShortQuantity(value)
	if err != nil {
		r.fail("objectSize", value, err.Error())
		return 0
	}
	size := uint64(max(Bytes(quantity), 0))
	if err := rbdutil.CheckObjectSize(size); err != nil {
		r.fail("objectSize", value, err.Error())
	}
	return size
}

func (r *reader) retention() time.Duration {
	value := r.get("trashRetention")
	if value == "" {
		return 0
	}
	keep, err := ParseRetention(value)
	if err != nil {
		r.fail("trashRetention", value, err.Error())
	}
	return keep
}

// maxRetention detects a wrong unit, which would keep images for ever.
const maxRetention = 10 * 365 * 24 * time.Hour

// ParseRetention parses how long a deleted image stays in the trash. Ceph counts whole
// seconds.
func ParseRetention(text string) (time.Duration, error) {
	keep, err := time.ParseDuration(text)
	if err != nil || keep < 0 || keep > maxRetention || keep%time.Second != 0 {
		return 0, fmt.Errorf("not a duration such as 24h, allowed: 0 to %dh in whole seconds", int(maxRetention.Hours()))
	}
	return keep, nil
}
