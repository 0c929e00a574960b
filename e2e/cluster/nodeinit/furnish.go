package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// furnish makes the new namespaces into what a kubelet expects of a machine, and then writes a
// byte to descriptor 3. cgroups are the node's control groups, as the host names them.
func furnish(directory, address string, cgroups []string) error {
	for _, group := range cgroups {
		if err := join(group); err != nil {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil { // the groups just joined are its root
		return fmt.Errorf("make a control-group namespace: %w", err)
	}
	for _, step := range []func() error{
		mountFilesystems,
		func() error { return pretendSysctls(filepath.Join(directory, "sysctl")) },
		func() error { return configureNetwork(address) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	ready := os.NewFile(3, "ready")
	defer ready.Close()
	_, err := ready.Write([]byte{1})
	return err
}

func mountFilesystems() error {
	steps := []mount{
		{target: "/", flags: unix.MS_REC | unix.MS_PRIVATE}, // nothing from here reaches the host
		{target: "/", flags: unix.MS_REC | unix.MS_SHARED},  // but it does reach the pods
		{kind: "proc", target: "/proc", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{kind: "sysfs", target: "/sys", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		// Where kubelet, containerd and the CNI plugins write without being asked.
		{kind: "tmpfs", target: "/run", options: "mode=755"},
		{kind: "tmpfs", target: "/var/log", options: "mode=755"},
		{kind: "tmpfs", target: "/var/lib/cni", options: "mode=755"},
	}
	if err := os.MkdirAll("/var/lib/cni", 0o755); err != nil {
		return err
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return err
		}
	}
	if err := os.Mkdir("/run/netns", 0o755); err != nil {
		return err
	}
	return mountCgroups()
}

// pretendSysctls shows the kubelet the values that it insists on, in files of the cluster's own:
// the machine's real ones stay as they are.
func pretendSysctls(directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/keys/root_maxbytes": "25000000",
	} {
		file := filepath.Join(directory, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := (mount{source: file, target: "/proc/sys/" + name, flags: unix.MS_BIND}).do(); err != nil {
			return err
		}
	}
	return nil
}

// configureNetwork gives the node its address, on a bridge that leads nowhere.
func configureNetwork(address string) error {
	for _, arguments := range []string{
		"link set lo up",
		"link add node0 type bridge",
		"address add " + address + "/24 dev node0",
		"link set node0 up",
		"route add default dev node0",
	} {
		if output, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", arguments, err, output)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1\n"), 0o644)
}

type mount struct {
	kind, source, target, options string
	flags                         uintptr
}

func (m mount) do() error {
	if m.source == "" {
		m.source = m.kind
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
	}
	return nil
}
