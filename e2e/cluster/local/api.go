package local

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// api asks the cluster's API server, as the administrator.
type api struct {
	server string
	client *http.Client
}

func (c *Cluster) newAPI() (*api, error) {
	authority, err := os.ReadFile(c.path("pki", "ca.crt"))
	if err != nil {
		return nil, err
	}
	certificate, err := tls.LoadX509KeyPair(c.path("pki", "admin.crt"), c.path("pki", "admin.key"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &api{server: c.server(), client: &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}},
	}}, nil
}

// get reads a path into result, if that is given; any answer but 200 is an error.
func (a *api) get(ctx context.Context, path string, result any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.server+path, nil)
	if err != nil {
		return err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, response.Status, strings.TrimSpace(string(body)))
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(body, result)
}

func (a *api) ready(ctx context.Context) error {
	return a.get(ctx, "/readyz", nil)
}

// nodeReady tells whether the node has said, at that time or later, that it is ready. What the API
// server has from before a restart says nothing about now.
func (a *api) nodeReady(ctx context.Context, since time.Time) error {
	var node struct {
		Status struct {
			Conditions []struct {
				Type, Status, Message string
				LastHeartbeatTime     time.Time // whole seconds
			}
		}
	}
	if err := a.get(ctx, "/api/v1/nodes/"+nodeName, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.LastHeartbeatTime.Before(since.Truncate(time.Second)) {
				return errors.New("node " + nodeName + " has not reported yet")
			}
			if condition.Status == "True" {
				return nil
			}
			return fmt.Errorf("node %s is not ready: %s", nodeName, condition.Message)
		}
	}
	return errors.New("node " + nodeName + " has no condition Ready yet")
}
