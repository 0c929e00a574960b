package local

import (
	"context"
	"fmt"
)

const (
	serviceAddresses  = "10.96.0.0/16"
	apiServiceAddress = "10.96.0.1" // the first of them: Service kubernetes in namespace default
)

// startControlPlane starts etcd, the API server and the controllers, and waits until a user can
// work with them.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	if err := c.startEtcd(); err != nil {
		return err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	api, err := c.newAPI()
	if err != nil {
		return err
	}
	controllers, err := c.start("kube-controller-manager",
		"--kubeconfig="+c.kubeconfig("kube-controller-manager"),
		"--use-service-account-credentials",
		"--root-ca-file="+c.path("pki", "ca.crt"),
		"--service-account-private-key-file="+c.path("pki", "sa.key"),
		"--leader-elect=false",
		"--secure-port=0", // no port of its own, so none to choose
		"--kube-api-qps=1000", "--kube-api-burst=2000",
	)
	if err != nil {
		return err
	}
	// Without it no pod can be created, so a user who is quick would see an error.
	return controllers.until(ctx, "service account default of namespace default", func(ctx context.Context) error {
		return api.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}

// startEtcd starts etcd as a real cluster has it: every write synced to disk before it is
// acknowledged, and only for those who hold a certificate.
func (c *Cluster) startEtcd() error {
	client := fmt.Sprintf("https://127.0.0.1:%d", c.state.Ports.Etcd)
	peer := fmt.Sprintf("https://127.0.0.1:%d", c.state.Ports.EtcdPeer)
	ca, certificate, key := c.path("pki", "ca.crt"), c.path("pki", "etcd.crt"), c.path("pki", "etcd.key")
	_, err := c.start("etcd",
		"--name=etcd", "--data-dir="+c.path("etcd"), "--log-level=warn",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--client-cert-auth", "--trusted-ca-file="+ca, "--cert-file="+certificate, "--key-file="+key,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=etcd="+peer,
		"--peer-client-cert-auth", "--peer-trusted-ca-file="+ca, "--peer-cert-file="+certificate, "--peer-key-file="+key,
	)
	return err
}

// startAPIServer starts the API server, everything at Kubernetes' defaults that need not differ, but as strict as
// OpenShift's on who may say what owns an object; and waits until it is ready.
func (c *Cluster) startAPIServer(ctx context.Context) error {
	arguments := []string{
		fmt.Sprintf("--secure-port=%d", c.state.Ports.API),
		"--tls-cert-file=" + c.path("pki", "apiserver.crt"), "--tls-private-key-file=" + c.path("pki", "apiserver.key"),
		"--client-ca-file=" + c.path("pki", "ca.crt"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
		fmt.Sprintf("--etcd-servers=https://127.0.0.1:%d", c.state.Ports.Etcd),
		"--etcd-cafile=" + c.path("pki", "ca.crt"), "--etcd-certfile=" + c.path("pki", "etcd.crt"), "--etcd-keyfile=" + c.path("pki", "etcd.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.path("pki", "sa.key"), "--service-account-signing-key-file=" + c.path("pki", "sa.key"),
		"--service-cluster-ip-range=" + serviceAddresses,
		"--allow-privileged",
	}
	if c.state.Node {
		arguments = append(arguments,
			"--bind-address=0.0.0.0", "--advertise-address="+nodeAddress,
			"--kubelet-client-certificate="+c.path("pki", "apiserver-kubelet.crt"), "--kubelet-client-key="+c.path("pki", "apiserver-kubelet.key"),
			"--kubelet-preferred-address-types=InternalIP",
		)
	} else {
		// No pod will look for the API server, and a loopback address can't be an endpoint.
		arguments = append(arguments,
			"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
		)
	}
	server, err := c.start("kube-apiserver", arguments...)
	if err != nil {
		return err
	}
	api, err := c.newAPI()
	if err != nil {
		return err
	}
	return server.until(ctx, "the API server's readiness", api.ready)
}
