package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// leaf holds the node's own processes in the unified hierarchy, where a group that hands
	// controllers to its children, as the root of the pods' must, can't hold any itself.
	leaf = cgroupRoot + "/nodeinit"
)

// join moves this process into a control group.
func join(group string) error {
	return os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0)
}

// mountCgroups mounts the hierarchies that the host has, each from this namespace's root on.
func mountCgroups() error {
	memberships, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	if strings.HasPrefix(string(memberships), "0::") && strings.Count(string(memberships), "\n") == 1 {
		return mountUnified()
	}
	if err := (mount{kind: "tmpfs", target: cgroupRoot, options: "mode=755"}).do(); err != nil {
		return err
	}
	for line := range strings.Lines(string(memberships)) {
		controllers := strings.Split(line, ":")[1]
		if controllers == "" { // the unified one, which controls nothing here
			continue
		}
		options := controllers
		if name, named := strings.CutPrefix(controllers, "name="); named {
			options, controllers = "none,name="+name, name
		}
		target := filepath.Join(cgroupRoot, controllers)
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
		if err := (mount{kind: "cgroup", target: target, options: options}).do(); err != nil {
			return err
		}
		// Controllers that share a hierarchy are also looked for one by one.
		for _, single := range strings.Split(controllers, ",") {
			if single != controllers {
				if err := os.Symlink(controllers, filepath.Join(cgroupRoot, single)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func mountUnified() error {
	if err := (mount{kind: "cgroup2", target: cgroupRoot}).do(); err != nil {
		return err
	}
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	if err := join(leaf); err != nil {
		return err
	}
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(cgroupRoot, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("hand the %s controller to the pods: %w", controller, err)
		}
	}
	return nil
}

// execInCgroup joins the node's control group, inside whose namespaces it was started, and becomes
// the program, with the name and arguments given.
func execInCgroup(program string, arguments []string) error {
	groups := []string{leaf}
	if _, err := os.Stat(leaf); err != nil {
		if groups, err = filepath.Glob(cgroupRoot + "/*/cgroup.procs"); err != nil {
			return err
		}
		for i := range groups {
			groups[i] = filepath.Dir(groups[i])
		}
	}
	for _, group := range groups {
		if err := join(group); err != nil {
			return err
		}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, arguments, os.Environ()))
}
