package local

import (
	"bytes"
	"context"
	"embed"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
	"time"
)

// The node's network, which leads nowhere and is no one else's: each node may have the same.
const (
	nodeName     = "node"
	nodeAddress  = "10.99.0.1"
	podAddresses = "10.244.0.0/24"
	pauseImage   = "localhost/pause:1"
	// containerdSocket is inside the node's own /run.
	containerdSocket = "/run/containerd.sock"
)

//go:embed node
var nodeFiles embed.FS

// startNode starts the scheduler, containerd, the kubelet and the proxy, and waits until the node
// takes pods.
func (c *Cluster) startNode(ctx context.Context) error {
	if err := c.writeNodeFiles(); err != nil {
		return err
	}
	if _, err := c.start("kube-scheduler",
		"--kubeconfig="+c.kubeconfig("kube-scheduler"), "--leader-elect=false", "--secure-port=0",
		"--kube-api-qps=1000", "--kube-api-burst=2000",
	); err != nil {
		return err
	}
	containerd, err := c.run("containerd", exec.Command("containerd", "--config", c.path("node", "containerd.toml")))
	if err != nil {
		return err
	}
	if err := containerd.until(ctx, "containerd's readiness", func(context.Context) error { return c.ctr("version") }); err != nil {
		return err
	}
	pause, err := beside("nodeinit")
	if err != nil {
		return err
	}
	if err := c.importImage(pauseImage, image{files: []imageFile{{path: "/pause", source: pause}}}); err != nil {
		return err
	}
	began := time.Now()
	kubelet, err := c.start("kubelet",
		"--config="+c.path("node", "kubelet.yaml"), "--kubeconfig="+c.kubeconfig("kubelet"),
		"--root-dir="+c.path("kubelet"), "--cert-dir="+c.path("kubelet", "pki"),
		"--hostname-override="+nodeName, "--node-ip="+nodeAddress,
	)
	if err != nil {
		return err
	}
	if _, err := c.start("kube-proxy", "--config="+c.path("node", "kube-proxy.yaml")); err != nil {
		return err
	}
	api, err := c.newAPI()
	if err != nil {
		return err
	}
	return kubelet.until(ctx, "the node's readiness", func(ctx context.Context) error { return api.nodeReady(ctx, began) })
}

// writeNodeFiles fills in the templates of the node directory.
func (c *Cluster) writeNodeFiles() error {
	plugins, err := networkPlugins()
	if err != nil {
		return err
	}
	values := map[string]string{
		"Dir": c.Dir, "CA": c.path("pki", "ca.crt"), "ProxyKubeconfig": c.kubeconfig("kube-proxy"),
		"NodeName": nodeName, "NodeAddress": nodeAddress, "PodAddresses": podAddresses,
		"PauseImage": pauseImage, "Containerd": containerdSocket, "NetworkPlugins": plugins,
	}
	templates, err := template.New("").Option("missingkey=error").ParseFS(nodeFiles, "node/*")
	if err != nil {
		return err
	}
	for _, file := range templates.Templates() {
		path := c.path("node", file.Name())
		if file.Name() == "pods.conflist" {
			path = c.path("node", "cni", file.Name()) // containerd takes whatever it finds in its directory
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		var text bytes.Buffer
		if err := file.Execute(&text, values); err != nil {
			return err
		}
		if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
