package local

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
)

// write writes the image as an archive of an OCI image layout.
func (i image) write(out io.Writer, name string) error {
	_, tag, ok := strings.Cut(path.Base(name), ":")
	if !ok || tag == "" || !strings.Contains(name, "/") {
		return fmt.Errorf("image %q: give it a registry and a tag, as in localhost/app:1", name)
	}
	layer, err := i.layer()
	if err != nil {
		return err
	}
	program := i.files[0].path
	config := blob("application/vnd.oci.image.config.v1+json", map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"User":       "65532:65532", // pods that must not run as root need no more than this
			"Entrypoint": []string{program},
			"Env":        []string{"PATH=/usr/local/bin:/usr/bin:/bin:/"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.Digest}},
	})
	manifest := blob("application/vnd.oci.image.manifest.v1+json", map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        config,
		"layers":        []descriptor{layer},
	})
	manifest.Annotations = map[string]string{"io.containerd.image.name": name}
	index := blob("", map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifest}})

	archive := tar.NewWriter(out)
	err = errors.Join(
		addFile(archive, "oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)),
		addFile(archive, "index.json", 0o644, index.content),
	)
	for _, blob := range []descriptor{config, manifest, layer} {
		err = errors.Join(err, addFile(archive, "blobs/"+strings.Replace(blob.Digest, ":", "/", 1), 0o644, blob.content))
	}
	return errors.Join(err, archive.Close())
}

// layer is an archive of the files and of the directories above them.
func (i image) layer() (descriptor, error) {
	var content bytes.Buffer
	archive := tar.NewWriter(&content)
	written := map[string]bool{"/": true}
	var addDirectory func(string, int64) error
	addDirectory = func(directory string, mode int64) error {
		if written[directory] {
			return nil
		}
		written[directory] = true
		if err := addDirectory(path.Dir(directory), 0o755); err != nil {
			return err
		}
		return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: directory[1:] + "/", Mode: mode})
	}
	if err := addDirectory("/tmp", 0o1777); err != nil {
		return descriptor{}, err
	}
	for _, file := range i.files {
		target := path.Clean(file.path)
		if written[target] { // two programs with the same library
			continue
		}
		if err := addDirectory(path.Dir(target), 0o755); err != nil {
			return descriptor{}, err
		}
		written[target] = true
		text, mode := []byte(file.text), fs.FileMode(0o644)
		if file.source != "" {
			info, err := os.Stat(file.source)
			if err != nil {
				return descriptor{}, err
			}
			if !info.Mode().IsRegular() {
				return descriptor{}, fmt.Errorf("%s is not a regular file", file.source)
			}
			if info.Mode().Perm()&0o111 != 0 { // for whoever the container runs as
				mode = 0o755
			}
			if text, err = os.ReadFile(file.source); err != nil {
				return descriptor{}, err
			}
		}
		if err := addFile(archive, target[1:], mode, text); err != nil {
			return descriptor{}, err
		}
	}
	if err := archive.Close(); err != nil {
		return descriptor{}, err
	}
	return describe("application/vnd.oci.image.layer.v1.tar", content.Bytes()), nil
}

func addFile(archive *tar.Writer, name string, mode fs.FileMode, content []byte) error {
	header := &tar.Header{Name: name, Mode: int64(mode), Size: int64(len(content))}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

// descriptor is how OCI documents refer to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	content     []byte
}

func describe(mediaType string, content []byte) descriptor {
	return descriptor{
		MediaType: mediaType,
		Digest:    fmt.Sprintf("sha256:%x", sha256.Sum256(content)),
		Size:      len(content),
		content:   content,
	}
}

func blob(mediaType string, document map[string]any) descriptor {
	content, err := json.Marshal(document)
	if err != nil {
		panic(err) // maps of strings and numbers: it can't fail
	}
	return describe(mediaType, content)
}
