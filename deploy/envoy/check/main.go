// Checks Envoy's configuration against the schemas of Envoy's own project, and ostiary's answers with the messages that
// it generates: what ostiary reads and says must be what Envoy says and reads.
//
//	check <envoy.yaml> [<address of ostiary> <id of an API>]
//
// With an address it asks ostiary as the configuration says. The root key is in OSTIARY_ROOT_KEY, a good key in
// OSTIARY_KEY; that key is acme's and may read documents.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthz "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 && len(os.Args) != 4 {
		return errors.New("check <envoy.yaml> [<address of ostiary> <id of an API>]")
	}
	filter, extensions, err := configuration(os.Args[1])
	if err != nil {
		return err
	}
	fmt.Println("envoy: the configuration is as its schemas say")
	if len(os.Args) == 2 {
		return nil
	}
	extensions["api_id"] = os.Args[3]
	if err := ask(os.Args[2], filter, extensions); err != nil {
		return err
	}
	fmt.Println("envoy: ostiary answers in Envoy's own messages")
	return nil
}

// configuration reads the file, checks it and all that is packed in it, and returns the filter and all that its routes
// add to the question.
func configuration(path string) (*extauthz.ExtAuthz, map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	json, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, nil, err
	}
	whole := &bootstrap.Bootstrap{}
	if err := protojson.Unmarshal(json, whole); err != nil {
		return nil, nil, err
	}
	var filter *extauthz.ExtAuthz
	extensions := map[string]string{}
	err = validate(whole, func(message proto.Message) {
		switch message := message.(type) {
		case *extauthz.ExtAuthz:
			filter = message
		case *extauthz.ExtAuthzPerRoute:
			maps.Copy(extensions, message.GetCheckSettings().GetContextExtensions())
		}
	})
	if err == nil && filter == nil {
		err = errors.New("the configuration has no ext_authz")
	}
	return filter, extensions, err
}

// validate applies the rules of the schemas to a message and to all messages that are packed in it.
func validate(message proto.Message, visit func(proto.Message)) error {
	visit(message)
	if checked, ok := message.(interface{ ValidateAll() error }); ok {
		if err := checked.ValidateAll(); err != nil {
			return err
		}
	}
	return protorange.Range(message.ProtoReflect(), func(path protopath.Values) error {
		value, ok := path.Index(-1).Value.Interface().(protoreflect.Message)
		if !ok {
			return nil
		}
		packed, ok := value.Interface().(*anypb.Any)
		if !ok {
			return nil
		}
		inner, err := packed.UnmarshalNew()
		if err != nil {
			return err
		}
		if err := validate(inner, visit); err != nil {
			return err
		}
		return protorange.Break
	})
}

// ask asks about a request with a good key, one without and one with a key that there isn't.
func ask(address string, filter *extauthz.ExtAuthz, extensions map[string]string) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, entry := range filter.GetGrpcService().GetInitialMetadata() {
		value := strings.Replace(entry.GetValue(), "${ROOT_KEY}", os.Getenv("OSTIARY_ROOT_KEY"), 1)
		ctx = metadata.AppendToOutgoingContext(ctx, entry.GetKey(), value)
	}
	check := func(headers map[string]string) (*auth.CheckResponse, error) {
		return auth.NewAuthorizationClient(connection).Check(ctx, question(headers, extensions))
	}

	good := map[string]string{
		"authorization":      "Bearer " + os.Getenv("OSTIARY_KEY"),
		"x-ostiary-identity": "somebody else",
		"x_ostiary_identity": "somebody else",
	}
	answer, err := check(good)
	if err != nil {
		return err
	}
	if err := answer.ValidateAll(); err != nil {
		return err
	}
	passed := answer.GetOkResponse()
	if answer.GetStatus().GetCode() != 0 || passed == nil {
		return fmt.Errorf("a good key does not pass: %v", answer)
	}
	said := map[string]string{}
	for _, header := range passed.GetHeaders() {
		if header.GetAppendAction() != core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || header.GetAppend().GetValue() {
			return fmt.Errorf("%s would not take the place of what a client sent", header.GetHeader().GetKey())
		}
		said[header.GetHeader().GetKey()] = header.GetHeader().GetValue()
	}
	if said["x-ostiary-permissions"] != "documents.read" || said["x-ostiary-identity"] != "acme" {
		return fmt.Errorf("what is said of a good key is wrong: %v", said)
	}
	for _, name := range []string{"authorization", "x_ostiary_identity", "x-ostiary-roles"} {
		if !slices.Contains(passed.GetHeadersToRemove(), name) {
			return fmt.Errorf("upstream would see %s: only %v are removed", name, passed.GetHeadersToRemove())
		}
	}

	for _, headers := range []map[string]string{{}, {"authorization": "Bearer nonsense"}} {
		answer, err := check(headers)
		if err != nil {
			return err
		}
		if err := answer.ValidateAll(); err != nil {
			return err
		}
		if answer.GetStatus().GetCode() == 0 || answer.GetDeniedResponse().GetStatus().GetCode() != 401 {
			return fmt.Errorf("without a good key it passes: %v", answer)
		}
	}
	return nil
}

// question is what Envoy says of a request: more than ostiary reads.
func question(headers, extensions map[string]string) *auth.CheckRequest {
	peer := func(address string, port uint32) *auth.AttributeContext_Peer {
		socket := &core.SocketAddress{Address: address, PortSpecifier: &core.SocketAddress_PortValue{PortValue: port}}
		return &auth.AttributeContext_Peer{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: socket}}}
	}
	return &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Source:      peer("192.0.2.7", 4711),
		Destination: peer("192.0.2.1", 8080),
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Id: "1", Method: "GET", Path: "/documents", Host: "example.com", Scheme: "https", Size: -1, Protocol: "HTTP/2",
			Headers: headers, Body: "a body",
		}},
		ContextExtensions: extensions,
		MetadataContext:   &core.Metadata{},
	}}
}
