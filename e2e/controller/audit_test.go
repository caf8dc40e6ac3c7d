//go:build e2e

package controller

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/rbd-provisioner/rbd-provisioner/e2e/framework"
)

// auditEvent has the fields that are read from a line of the API server's audit log.
type auditEvent struct {
	Verb, UserAgent, RequestURI string
	RequestReceivedTimestamp    time.Time
	ObjectRef                   struct{ APIGroup, Resource, Subresource, Namespace, Name string }
	Annotations                 map[string]string
}

// right is one permission of a role. Without a name it is for all objects.
type right struct {
	role, verb, group, resource, name string
}

func (r right) String() string {
	text := r.role + ": " + r.verb + " " + r.resource
	if r.group != "" {
		text += "." + r.group
	}
	if r.name != "" {
		text += " " + r.name
	}
	return text
}

// checkRights compares the requests of the run's provisioners with the roles of deploy/base.
// Each request must be allowed by these roles only. If all tests have run, every permission
// must have been used.
func (r *wholeRun) checkRights(ctx context.Context, logs string, all bool) error {
	rights, err := rightsOfBase(ctx)
	if err != nil {
		return err
	}
	unused := map[right]bool{}
	for _, one := range rights {
		unused[one] = true
	}
	var problems []error
	err = eachAuditEvent(logs, func(event auditEvent) {
		switch used, err := rightUsed(event, rights); {
		case r.exempt(event.RequestReceivedTimestamp) || !strings.HasPrefix(event.UserAgent, "rbd-provisioner/"):
		case err != nil:
			problems = append(problems, err)
		default:
			delete(unused, used)
		}
	})
	if err != nil {
		return err
	}
	if len(unused) == len(rights) {
		return errors.New("the audit log has no requests of the provisioner")
	}
	if all {
		for one := range unused {
			problems = append(problems, fmt.Errorf("never used: %s", one))
		}
	}
	return errors.Join(problems...)
}

// rightsOfBase returns the permissions of all roles in deploy/base.
func rightsOfBase(ctx context.Context) ([]right, error) {
	manifests, err := framework.Base(ctx)
	if err != nil {
		return nil, err
	}
	var rights []right
	for _, manifest := range manifests {
		var role rbacv1.Role // or a ClusterRole, whose rules have the same type
		if err := yaml.Unmarshal([]byte(manifest), &role); err != nil {
			return nil, err
		}
		if role.Kind != "Role" && role.Kind != "ClusterRole" {
			continue
		}
		for _, rule := range role.Rules {
			rights = append(rights, rightsOf(fmt.Sprintf("%s %q", role.Kind, role.Name), rule)...)
		}
	}
	return rights, nil
}

func rightsOf(role string, rule rbacv1.PolicyRule) []right {
	var rights []right
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	for _, verb := range rule.Verbs {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range names {
					rights = append(rights, right{role: role, verb: verb, group: group, resource: resource, name: name})
				}
			}
		}
	}
	return rights
}

// allowedBy matches the reason that RBAC gives.
var allowedBy = regexp.MustCompile(`^RBAC: allowed by \w+ "[^"]+" of (\w+ "[^"]+") to ServiceAccount `)

// rightUsed returns the permission that a request has used, or none for a lease in a test's own
// namespace.
func rightUsed(event auditEvent, rights []right) (right, error) {
	object, reason := event.ObjectRef, event.Annotations["authorization.k8s.io/reason"]
	match := allowedBy.FindStringSubmatch(reason)
	if event.Annotations["authorization.k8s.io/decision"] != "allow" || match == nil {
		return right{}, fmt.Errorf("not allowed by deploy/base: %s %s (%s)", event.Verb, event.RequestURI, reason)
	}
	if object.Resource == "leases" && strings.HasPrefix(match[1], `Role "`+framework.LeaseRolePrefix) {
		return right{}, nil
	}
	resource := object.Resource
	if object.Subresource != "" {
		resource += "/" + object.Subresource
	}
	i := slices.IndexFunc(rights, func(one right) bool {
		return one.role == match[1] && one.verb == event.Verb && one.group == object.APIGroup && one.resource == resource &&
			(one.name == "" || one.name == object.Name)
	})
	if i < 0 {
		return right{}, fmt.Errorf("not in deploy/base: %s %s (%s)", event.Verb, event.RequestURI, reason)
	}
	return rights[i], nil
}

// eachAuditEvent reads all files of the audit log.
func eachAuditEvent(logs string, visit func(auditEvent)) error {
	files, err := filepath.Glob(filepath.Join(logs, "kube-apiserver-audit*.log"))
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var event auditEvent
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			visit(event)
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// exempt reports whether a request is ignored: it is from an earlier run in the same lab, or
// the API server was starting and had not loaded its roles.
func (r *wholeRun) exempt(at time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return at.Before(r.begun) || slices.ContainsFunc(r.restarts, func(restart interval) bool {
		return at.After(restart.from) && at.Before(restart.to)
	})
}

// TestRightUsed tests the check of the audit log.
func TestRightUsed(t *testing.T) {
	t.Parallel()
	const ours = `ClusterRole "rbd-provisioner"`
	secret := right{role: ours, verb: "get", resource: "secrets"}
	lease := right{role: ours, verb: "update", group: "coordination.k8s.io", resource: "leases", name: "ceph.com-rbd"}
	allowed := func(role string) string {
		return `RBAC: allowed by ClusterRoleBinding "any" of ` + role + ` to ServiceAccount "rbd-provisioner/kube-system"`
	}
	for name, test := range map[string]struct {
		verb, group, resource, subresource, name, decision, reason string
		want                                                       right
		problem                                                    string
	}{
		"used":                  {"get", "", "secrets", "", "any", "allow", allowed(ours), secret, ""},
		"used by name":          {"update", "coordination.k8s.io", "leases", "", "ceph.com-rbd", "allow", allowed(ours), lease, ""},
		"lease of a test":       {"update", "coordination.k8s.io", "leases", "", "x", "allow", allowed(`Role "leases-x"`), right{}, ""},
		"forbidden":             {"list", "", "secrets", "", "", "forbid", "", right{}, "not allowed by deploy/base"},
		"allowed to anybody":    {"get", "", "secrets", "", "any", "allow", `RBAC: allowed by ClusterRoleBinding "any" of ClusterRole "any" to Group "all"`, right{}, "not allowed by deploy/base"},
		"allowed by other role": {"get", "", "secrets", "", "any", "allow", allowed(`ClusterRole "any"`), right{}, "not in deploy/base"},
		"other name":            {"update", "coordination.k8s.io", "leases", "", "any", "allow", allowed(ours), right{}, "not in deploy/base"},
		"subresource":           {"get", "", "secrets", "status", "any", "allow", allowed(ours), right{}, "not in deploy/base"},
	} {
		var event auditEvent
		event.Verb, event.ObjectRef.APIGroup, event.ObjectRef.Resource = test.verb, test.group, test.resource
		event.ObjectRef.Subresource, event.ObjectRef.Name = test.subresource, test.name
		event.Annotations = map[string]string{
			"authorization.k8s.io/decision": test.decision, "authorization.k8s.io/reason": test.reason,
		}
		got, err := rightUsed(event, []right{secret, lease})
		if got != test.want || (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%s: got %v, %v, want %v, %q", name, got, err, test.want, test.problem)
		}
	}
}
