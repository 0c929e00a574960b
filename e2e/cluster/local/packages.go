package local

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// nodePrograms are what a node needs that is not in this binary, and Debian's packages of them.
// containerd and runc must fit each other, as those of one Debian release do.
var nodePrograms = []struct{ program, debian string }{
	{"containerd", "containerd"},
	{"ctr", "containerd"},
	{"runc", "runc"},
	{"nft", "nftables"},
	{"ip", "iproute2"},
}

const networkPluginsPackage = "containernetworking-plugins"

// requireNodePackages installs what is missing, if it can.
func requireNodePackages() error {
	if os.Geteuid() != 0 {
		return errors.New("a node needs root (for namespaces, mounts and control groups); without --node, none is needed")
	}
	packages, programs := missing()
	if len(packages) == 0 {
		return nil
	}
	install := append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, packages...)
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("a node needs %s: install them (Debian's packages are %s)", strings.Join(programs, ", "), strings.Join(packages, ", "))
	}
	progress("a node needs %s: %s", strings.Join(programs, ", "), strings.Join(install, " "))
	if err := toStderr(install...); err != nil {
		// The usual reason is an outdated list of packages.
		if err := errors.Join(toStderr("apt-get", "update"), toStderr(install...)); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(install, " "), err)
		}
	}
	if _, programs := missing(); len(programs) > 0 {
		return fmt.Errorf("%s not found, although installed", strings.Join(programs, ", "))
	}
	return nil
}

func missing() (packages, programs []string) {
	for _, needed := range nodePrograms {
		if _, err := exec.LookPath(needed.program); err != nil {
			programs = append(programs, needed.program)
			packages = append(packages, needed.debian)
		}
	}
	if _, err := networkPlugins(); err != nil {
		programs = append(programs, "the CNI plugins")
		packages = append(packages, networkPluginsPackage)
	}
	return slices.Compact(packages), programs
}

// networkPlugins is the directory with the CNI plugins: Debian's, or the one that all others use.
func networkPlugins() (string, error) {
	for _, directory := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(directory, "bridge")); err == nil {
			return directory, nil
		}
	}
	return "", errors.New("the CNI plugin bridge is neither in /usr/lib/cni nor in /opt/cni/bin")
}

func toStderr(arguments ...string) error {
	command := exec.Command(arguments[0], arguments[1:]...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	return command.Run()
}
