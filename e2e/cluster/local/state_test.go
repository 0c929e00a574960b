package local

import (
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T, root string) *Cluster {
	t.Helper()
	cluster, release, err := Open(root, "demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return cluster
}

func TestStateIsFoundAgain(t *testing.T) {
	root := t.TempDir()
	first, release, err := Open(root, "demo")
	if err != nil {
		t.Fatal(err)
	}
	if first.exists() {
		t.Fatal("a cluster exists in an empty directory")
	}

	// given a cluster that has chosen its ports and started, and restarted, a program
	if err := os.Mkdir(first.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	first.state.Ports = Ports{API: 1, Etcd: 2, EtcdPeer: 3}
	for _, process := range []Process{{1, "old"}, {2, "new"}} {
		if err := first.record("etcd", process); err != nil {
			t.Fatal(err)
		}
	}
	release()

	// then another command finds it so
	again := open(t, root)
	if !again.exists() || again.state.Ports != first.state.Ports {
		t.Errorf("found %+v, expected %+v", again.state, first.state)
	}
	if len(again.state.Processes) != 1 || again.state.Processes[0].Process != (Process{2, "new"}) {
		t.Errorf("processes %v: expected the last etcd alone", again.state.Processes)
	}
}

func TestDownLeavesNothing(t *testing.T) {
	root := t.TempDir()
	cluster, release, err := Open(root, "demo")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(cluster.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Down(); err != nil {
		t.Fatal(err)
	}
	release()
	if left, _ := filepath.Glob(filepath.Join(root, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestALockThatWasDeletedMeanwhileLocksNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	release, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan func())
	go func() {
		release, err := lock(path)
		if err != nil {
			t.Error(err)
			release = func() {}
		}
		second <- release
	}()

	// when the holder deletes the file and lets go
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	release()

	// then who waited holds a lock on a file that others find
	defer (<-second)()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestNamesThatCannotBePathsAreRefused(t *testing.T) {
	for _, name := range []string{"", "../x", "Upper", "-a", "a-", "a/b", "this-name-is-longer-than-thirty-characters"} {
		if _, _, err := Open(t.TempDir(), name); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
}

func TestPortsAreFreeAndDistinct(t *testing.T) {
	ports, err := choosePorts()
	if err != nil {
		t.Fatal(err)
	}
	if !ports.free() || ports.API == ports.Etcd || ports.Etcd == ports.EtcdPeer || ports.API == ports.EtcdPeer {
		t.Errorf("%+v", ports)
	}
}
