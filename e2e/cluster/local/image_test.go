package local

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unpack reads a tar archive into its entries, by name.
func unpack(t *testing.T, archive []byte) (headers map[string]*tar.Header, contents map[string][]byte) {
	t.Helper()
	headers, contents = map[string]*tar.Header{}, map[string][]byte{}
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return headers, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		if headers[header.Name] != nil {
			t.Errorf("%s is twice in the archive", header.Name)
		}
		headers[header.Name] = header
		if contents[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}

func parse[T any](t *testing.T, text []byte) (document T) {
	t.Helper()
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return document
}

func script(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/app\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAnImageIsALayoutWhoseDigestsHold(t *testing.T) {
	made, err := newImage(script(t, "operator"), []string{script(t, "config") + ":/etc/app/config"})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := made.write(&archive, "localhost/operator:1"); err != nil {
		t.Fatal(err)
	}
	_, files := unpack(t, archive.Bytes())

	// when one follows the digests from the index on, as a runtime does
	read := func(d descriptor) []byte {
		content, ok := files["blobs/"+strings.Replace(d.Digest, ":", "/", 1)]
		if !ok || describe("", content).Digest != d.Digest || len(content) != d.Size {
			t.Fatalf("blob %s (%s) is missing or other than described", d.Digest, d.MediaType)
		}
		return content
	}
	index := parse[struct{ Manifests []descriptor }](t, files["index.json"])
	if name := index.Manifests[0].Annotations["io.containerd.image.name"]; name != "localhost/operator:1" {
		t.Errorf("the image is called %q", name)
	}
	manifest := parse[struct {
		Config descriptor
		Layers []descriptor
	}](t, read(index.Manifests[0]))
	config := parse[struct {
		Config struct{ Entrypoint []string }
		Rootfs struct {
			Diff_IDs []string
		}
	}](t, read(manifest.Config))

	// then the image starts its program, which is there with the right to be executed
	if !slices.Equal(config.Config.Entrypoint, []string{"/operator"}) {
		t.Errorf("the image starts %v", config.Config.Entrypoint)
	}
	if !slices.Equal(config.Rootfs.Diff_IDs, []string{manifest.Layers[0].Digest}) {
		t.Errorf("layers %v, but the only one is %s", config.Rootfs.Diff_IDs, manifest.Layers[0].Digest)
	}
	headers, contents := unpack(t, read(manifest.Layers[0]))
	for name, mode := range map[string]int64{"operator": 0o755, "etc/app/config": 0o755, "etc/passwd": 0o644, "tmp/": 0o1777, "etc/app/": 0o755} {
		if headers[name] == nil || headers[name].Mode != mode {
			t.Errorf("%s: %+v, expected mode %o", name, headers[name], mode)
		}
	}
	if string(contents["operator"]) != "#!/app\n" {
		t.Errorf("the program is %q", contents["operator"])
	}
}

func TestAProgramBringsItsSharedLibraries(t *testing.T) {
	made, err := newImage("/bin/sh", []string{"/bin/cat"})
	if err != nil {
		t.Fatal(err)
	}
	layer, err := made.layer() // unpack fails if a library that both need is there twice
	if err != nil {
		t.Fatal(err)
	}
	headers, _ := unpack(t, layer.content)
	for _, expected := range []string{"sh", "bin/cat"} {
		if headers[expected] == nil {
			t.Errorf("%s is missing", expected)
		}
	}
	found := false
	for name := range headers {
		found = found || strings.Contains(filepath.Base(name), "libc.")
	}
	if !found {
		t.Error("the C library is missing")
	}
}

func TestLddIsUnderstood(t *testing.T) {
	libraries, err := parseLdd("\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f9a)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f9b)\n")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(libraries, []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}) {
		t.Errorf("got %v", libraries)
	}
	if _, err := parseLdd("\tlibssl.so.1 => not found\n"); err == nil || !strings.Contains(err.Error(), "libssl.so.1") {
		t.Errorf("a library that is missing: %v", err)
	}
}

func TestPathsInAnImageAreAbsolute(t *testing.T) {
	if _, err := newImage("/bin/sh:bin/sh", nil); err == nil {
		t.Error("a relative path was taken")
	}
}
