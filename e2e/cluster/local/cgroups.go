package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// createCgroups makes a control group of the cluster's own in every hierarchy. It becomes the root
// that the node sees: its pods' groups never mix with another's, and are gone when it is removed.
func (c *Cluster) createCgroups() error {
	memberships, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	unified := isUnified(cgroupRoot)
	for _, parent := range parentCgroups(string(memberships), unified) {
		// The process id tells clusters of the same name in other directories apart.
		directory := filepath.Join(parent, fmt.Sprintf("holdfast-%s-%d", c.Name, os.Getpid()))
		if err := os.Mkdir(directory, 0o755); err != nil {
			return fmt.Errorf("make a control group for the node: %w", err)
		}
		c.state.Cgroups = append(c.state.Cgroups, directory)
		if err := c.saveState(); err != nil {
			return err
		}
		if !unified {
			if err := inheritCpuset(parent, directory); err != nil {
				return err
			}
		}
	}
	return nil
}

// parentCgroups gives the directories to make the cluster's control groups in, from what
// /proc/self/cgroup lists. In hierarchies of version 1 that is where this process is. In the
// unified one it is the top, as a group with processes in it has no controllers to hand down; where
// it is mounted beside those of version 1, it controls nothing and is left out.
func parentCgroups(memberships string, unified bool) []string {
	if unified {
		return []string{cgroupRoot}
	}
	var directories []string
	for line := range strings.Lines(memberships) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && parts[1] != "" {
			directories = append(directories, filepath.Join(cgroupRoot, strings.TrimPrefix(parts[1], "name="), parts[2]))
		}
	}
	return directories
}

// inheritCpuset gives a new group its parent's CPUs and memory: without, it takes no process.
func inheritCpuset(parent, group string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		inherited, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) { // another hierarchy
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(group, file), inherited, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func isUnified(directory string) bool {
	var info unix.Statfs_t
	return unix.Statfs(directory, &info) == nil && info.Type == unix.CGROUP2_SUPER_MAGIC
}

// removeCgroups removes the cluster's control groups with all below them; they must be empty of
// processes. The kernel may take a moment to see that they are.
func (c *Cluster) removeCgroups() error {
	for _, root := range c.state.Cgroups {
		var groups []string
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				groups = append(groups, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, group := range slices.Backward(groups) { // children first
			if err := removeCgroup(group); err != nil {
				return fmt.Errorf("remove the node's control group: %w", err)
			}
		}
	}
	if c.state.Cgroups == nil {
		return nil
	}
	c.state.Cgroups = nil
	return c.saveState()
}

func removeCgroup(group string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Rmdir(group)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return &fs.PathError{Op: "rmdir", Path: group, Err: err}
		}
	}
}
