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
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// image is a container image of one layer, made from files of this machine. The first file is its
// program.
type image struct {
	files []imageFile
}

// imageFile is a file of this machine (source), or a text, and its path in the image.
type imageFile struct {
	path   string
	source string
	text   string
}

// LoadImage makes an image of a program and gives it to the node. The shared libraries that the
// program, or another file, needs come along, and the machine's certificate authorities. Others are
// files of this machine, FILE (same path in the image) or FILE:PATH.
func (c *Cluster) LoadImage(name, program string, others []string) error {
	if !c.exists() {
		return c.errMissing()
	}
	if !c.state.Node {
		return fmt.Errorf("cluster %q has no node to run images on: start it with --node", c.Name)
	}
	made, err := newImage(program, others)
	if err != nil {
		return err
	}
	return c.importImage(name, made)
}

func newImage(program string, others []string) (image, error) {
	made := image{files: []imageFile{{path: "/" + filepath.Base(program), source: program}}}
	for _, other := range others {
		source, target, given := strings.Cut(other, ":")
		if !given {
			absolute, err := filepath.Abs(source)
			if err != nil {
				return image{}, err
			}
			target = absolute
		}
		if !path.IsAbs(target) {
			return image{}, fmt.Errorf("%s: the path in the image must be absolute", other)
		}
		made.files = append(made.files, imageFile{path: target, source: source})
	}
	var libraries []imageFile
	for _, file := range made.files {
		needed, err := sharedLibraries(file.source)
		if err != nil {
			return image{}, err
		}
		for _, library := range needed {
			libraries = append(libraries, imageFile{path: library, source: library})
		}
	}
	made.files = append(made.files, libraries...)
	const authorities = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(authorities); err == nil {
		made.files = append(made.files, imageFile{path: authorities, source: authorities})
	}
	made.files = append(made.files, imageFile{
		path: "/etc/passwd",
		text: "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n",
	})
	return made, nil
}

// importImage hands the image to containerd under a name.
func (c *Cluster) importImage(name string, made image) error {
	_, tag, ok := strings.Cut(path.Base(name), ":")
	if !ok || tag == "" || !strings.Contains(name, "/") {
		return fmt.Errorf("image %q: give it a registry and a tag, as in localhost/app:1", name)
	}
	archive, err := os.CreateTemp(c.Dir, "image-*.tar")
	if err != nil {
		return err
	}
	defer os.Remove(archive.Name())
	defer archive.Close()
	if err := made.write(archive, name); err != nil {
		return err
	}
	if err := c.ctr("--namespace=k8s.io", "images", "import", archive.Name()); err != nil {
		return fmt.Errorf("import image %s: %w", name, err)
	}
	return nil
}

// write writes the image as an archive of an OCI image layout.
func (i image) write(out io.Writer, name string) error {
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
	files := []struct {
		path    string
		content []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index.content},
	}
	for _, content := range []descriptor{config, manifest, layer} {
		files = append(files, struct {
			path    string
			content []byte
		}{"blobs/" + strings.Replace(content.Digest, ":", "/", 1), content.content})
	}
	for _, file := range files {
		header := &tar.Header{Name: file.path, Mode: 0o644, Size: int64(len(file.content))}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(file.content); err != nil {
			return err
		}
	}
	return archive.Close()
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
			mode = info.Mode().Perm() | 0o444
			if text, err = os.ReadFile(file.source); err != nil {
				return descriptor{}, err
			}
		}
		header := &tar.Header{Name: target[1:], Mode: int64(mode), Size: int64(len(text))}
		if err := archive.WriteHeader(header); err != nil {
			return descriptor{}, err
		}
		if _, err := archive.Write(text); err != nil {
			return descriptor{}, err
		}
	}
	if err := archive.Close(); err != nil {
		return descriptor{}, err
	}
	return describe("application/vnd.oci.image.layer.v1.tar", content.Bytes()), nil
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

// ctr runs containerd's own client inside the node.
func (c *Cluster) ctr(arguments ...string) error {
	command := exec.Command("ctr", append([]string{"--address", containerdSocket}, arguments...)...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := c.startInside(command); err != nil {
		return err
	}
	if err := command.Wait(); err != nil {
		return errors.New(strings.TrimSpace(output.String()))
	}
	return nil
}
