package local

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
)

// writeKubeconfigs writes the administrator's kubeconfig and one for each component. The
// certificates are inside, so the file may be copied elsewhere.
func (c *Cluster) writeKubeconfigs() error {
	for _, name := range []string{"admin", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"} {
		var encoded [3]string
		for i, file := range []string{"ca.crt", name + ".crt", name + ".key"} {
			content, err := os.ReadFile(c.path("pki", file))
			if err != nil {
				return err
			}
			encoded[i] = base64.StdEncoding.EncodeToString(content)
		}
		text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[4]s
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[4]s}
current-context: %[1]s
`, "holdfast-"+c.Name, c.server(), encoded[0], name, encoded[1], encoded[2])
		if err := os.WriteFile(c.kubeconfig(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// kubeconfig is the path of an identity's kubeconfig; the administrator's is the one for users.
func (c *Cluster) kubeconfig(identity string) string {
	if identity == "admin" {
		return c.path("kubeconfig")
	}
	return filepath.Join(c.path("pki"), identity+".kubeconfig")
}

// server is the API server's address, the same on the host and inside a node's namespaces.
func (c *Cluster) server() string {
	return fmt.Sprintf("https://127.0.0.1:%d", c.state.Ports.API)
}
