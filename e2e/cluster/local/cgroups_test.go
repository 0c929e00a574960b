package local

import (
	"slices"
	"testing"
)

func TestParentCgroups(t *testing.T) {
	for _, scenario := range []struct {
		name        string
		memberships string
		unified     bool
		expected    []string
	}{
		{
			name:        "version 1, hierarchies of one controller and of two, the unified one beside them",
			memberships: "4:memory:/user\n3:cpu,cpuacct:/\n1:name=systemd:/\n0::/ignored\n",
			expected:    []string{"/sys/fs/cgroup/memory/user", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd"},
		},
		{
			name:        "version 2: at the top, wherever this process is",
			memberships: "0::/user.slice/session-1.scope\n",
			unified:     true,
			expected:    []string{"/sys/fs/cgroup"},
		},
	} {
		if found := parentCgroups(scenario.memberships, scenario.unified); !slices.Equal(found, scenario.expected) {
			t.Errorf("%s: %v, expected %v", scenario.name, found, scenario.expected)
		}
	}
}
