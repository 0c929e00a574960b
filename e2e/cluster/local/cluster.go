// Package local runs a Kubernetes cluster on this machine, without Docker: etcd, the API server and
// the controllers on the loopback address, and with a node, pods too, in namespaces of their own.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Cluster is one cluster on this machine. All that it is lies in its directory: state, keys, etcd's
// data, logs.
type Cluster struct {
	Name  string
	Dir   string
	state State
}

// Up starts the cluster, or what is needed of it: a healthy one is left as it is; of a half-dead
// one everything is restarted over the data that etcd holds.
func (c *Cluster) Up(ctx context.Context, node bool) error {
	if c.exists() && node && !c.state.Node {
		return fmt.Errorf("cluster %q exists without a node: take it down first (down --name %s)", c.Name, c.Name)
	}
	node = node || c.state.Node
	if c.healthy(ctx) {
		progress("cluster %s is running: %s", c.Name, c.server())
		return nil
	}
	if node {
		if err := requireNodePackages(); err != nil {
			return err
		}
	}
	if err := c.stopAll(); err != nil {
		return err
	}
	began := time.Now()
	if err := c.prepare(node); err != nil {
		return err
	}
	if err := c.startAll(ctx); err != nil {
		return errors.Join(err, c.stopAll())
	}
	c.state.Complete = true
	if err := c.saveState(); err != nil {
		return err
	}
	progress("cluster %s is ready after %.1f s: %s", c.Name, time.Since(began).Seconds(), c.server())
	return nil
}

// prepare writes what the programs read. What an earlier start left is kept: keys, data, and the
// ports unless someone else has taken one meanwhile.
func (c *Cluster) prepare(node bool) error {
	for _, directory := range []string{"log", "bin"} {
		if err := os.MkdirAll(c.path(directory), 0o755); err != nil {
			return err
		}
	}
	if err := c.linkKubectl(); err != nil {
		return err
	}
	c.state.Node = node
	if c.state.Ports == (Ports{}) || !c.state.Ports.free() {
		ports, err := choosePorts()
		if err != nil {
			return err
		}
		c.state.Ports = ports
	}
	if err := c.saveState(); err != nil {
		return err
	}
	if _, err := os.Stat(c.path("pki", "sa.key")); errors.Is(err, os.ErrNotExist) { // the last that is written
		if err := makeCertificates(c.path("pki")); err != nil {
			return err
		}
	}
	return c.writeKubeconfigs()
}

func (c *Cluster) startAll(ctx context.Context) error {
	if c.state.Node {
		if err := c.createNamespaces(); err != nil {
			return err
		}
		if err := c.forward(); err != nil {
			return err
		}
	}
	if err := c.startControlPlane(ctx); err != nil {
		return err
	}
	if c.state.Node {
		return c.startNode(ctx)
	}
	return nil
}

// Down stops everything that the cluster started and removes its directory.
func (c *Cluster) Down() error {
	if !c.exists() {
		progress("there is no cluster %s", c.Name)
	} else {
		if err := c.stopAll(); err != nil {
			return err
		}
		progress("cluster %s is gone", c.Name)
	}
	return os.RemoveAll(c.Dir)
}

// stopAll ends every process, last started first, and what the kernel holds for a node.
func (c *Cluster) stopAll() error {
	c.state.Complete = false
	for len(c.state.Processes) > 0 {
		last := c.state.Processes[len(c.state.Processes)-1]
		// etcd's writes are synced before they are acknowledged: nothing here needs a goodbye.
		if err := last.stop(unix.SIGKILL, 0); err != nil {
			return fmt.Errorf("stop %s: %w", last.Name, err)
		}
		c.state.Processes = c.state.Processes[:len(c.state.Processes)-1]
		if err := c.saveState(); err != nil {
			return err
		}
	}
	return c.removeCgroups()
}

// RestartAPIServer kills the API server, leaving requests in flight without an answer as a crash
// does, and starts it again after a while, with its address and data as they were.
func (c *Cluster) RestartAPIServer(ctx context.Context, downFor time.Duration) error {
	if !c.exists() {
		return c.errMissing()
	}
	if !c.state.Complete {
		return fmt.Errorf("cluster %q is not running: start it again (up --name %s)", c.Name, c.Name)
	}
	for _, process := range c.state.Processes {
		if process.Name == "kube-apiserver" {
			if err := process.stop(unix.SIGKILL, 0); err != nil {
				return err
			}
		}
	}
	time.Sleep(downFor)
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	progress("the API server of cluster %s is ready again: %s", c.Name, c.server())
	return nil
}

// healthy tells whether every process runs and the API server, and the node, say that they are ready.
func (c *Cluster) healthy(ctx context.Context) bool {
	if !c.state.Complete {
		return false
	}
	for _, process := range c.state.Processes {
		if !process.running() {
			return false
		}
	}
	api, err := c.newAPI()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return api.ready(ctx) == nil && (!c.state.Node || api.nodeReady(ctx, time.Time{}) == nil)
}

func (c *Cluster) errMissing() error {
	return fmt.Errorf("there is no cluster %q under %s: start it first (up --name %s)", c.Name, filepath.Dir(c.Dir), c.Name)
}

// path is a path inside the cluster's directory.
func (c *Cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.Dir}, elements...)...)
}

// progress tells the person at the terminal; stdout is for results alone.
func progress(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
}
