#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/shared_bytes.h"
#include "common/base/status.h"

namespace thresher::net {

// The ZeroMQ adapter: the only place that includes zmq. Two roles: a Server (ROUTER, the broker)
// and a Client (DEALER, everyone else). TCP is always CURVE with a ZAP allow-list; ipc lives in a
// 0700 directory and needs none. Frames are opaque bytes here.

struct KeyPair {
  std::string public_key;  // Z85, 40 characters
  std::string secret_key;
};
Result<KeyPair> GenerateKeyPair();

// `folder`/{broker,actor,learner,tool}.key, mode 0600, folder 0700: made when missing.
// Each file holds two lines: public, secret. Errors: kPermissionDenied (mode too open), kDataLoss.
struct KeyRing {
  KeyPair broker, actor, learner, tool;
};
Result<KeyRing> LoadOrCreateKeys(const std::filesystem::path& folder);
// Makes the keys of these roles ("actor", ...) anew; returns the public ones in that order. Without
// `replace` a key that is there is kAlreadyExists, and none is made. Errors also: kInvalidArgument
// (role), kPermissionDenied (folder open to others), kUnavailable (cannot be written).
Result<std::vector<std::string>> MakeKeys(const std::filesystem::path& folder,
                                          const std::vector<std::string>& roles, bool replace);

struct ServerOptions {
  std::vector<std::string> endpoints;  // ipc://path, tcp://address:port ("*" or 0: any free port)
  std::optional<KeyRing> keys;         // required for tcp
  std::size_t max_message_bytes = 8u << 20;
  int high_water_mark = 4096;  // messages that wait for one peer
  // Messages of one peer that wait to be read. Few, for they may be long: more wait in the sender's
  // own memory, so that a flood costs the flooder.
  int receive_high_water_mark = 16;
};

// Opaque name of a connected peer, as ROUTER gives it.
using PeerAddress = std::string;

struct Received {
  PeerAddress peer;
  std::string key_user_id;  // "actor", "learner", ... by CURVE key; "local" over ipc
  SharedBytes bytes;        // the message itself, not a copy
};

// One owner thread; not thread-safe. Sends never block: a full or gone peer is an error. Long
// messages are sent from where they lie and kept until they have left.
class Server {
 public:
  // Binds the ZAP handler first, then the endpoints. Errors: kUnavailable (address in use, names
  // it), kInvalidArgument (endpoint), kPermissionDenied (port, or an ipc folder open to others).
  static Result<std::unique_ptr<Server>> Bind(const ServerOptions& options);
  virtual ~Server() = default;
  // The endpoints with their real ports ("tcp://0.0.0.0:41234" for "*").
  virtual std::vector<std::string> endpoints() const = 0;
  // Waits at most `timeout`; nothing on time-out or Wake. A message of other than two parts, above
  // max_message_bytes, without a user id, or from an address that another key uses is counted as
  // malformed and skipped. (Above twice max_message_bytes ZeroMQ itself ends the connection.)
  virtual std::optional<Received> Receive(std::chrono::milliseconds timeout) = 0;
  // Errors: kUnavailable (peer gone: EHOSTUNREACH), kResourceExhausted (its queue is full),
  // kOutOfRange (longer than max_message_bytes).
  virtual Status Send(const PeerAddress& peer, SharedBytes bytes) = 0;
  virtual std::uint64_t malformed() const = 0;
  // Connections refused before their first message: foreign protocol, no or an unknown key.
  // Counted by Receive.
  virtual std::uint64_t refused() const = 0;
  // Wakes a Receive from another thread (the only thread-safe member).
  virtual void Wake() = 0;
};

struct ClientOptions {
  std::string endpoint;
  std::optional<KeyPair> own_key;  // required for tcp
  std::string server_public_key;   // required for tcp
  std::size_t max_message_bytes = 8u << 20;
  int high_water_mark = 4096;
};

// One owner thread; not thread-safe but for Wake. Connects in the background and reconnects by
// itself with back-off; it never says so: liveness is the application's heartbeats.
class Client {
 public:
  // Error: kInvalidArgument (endpoint, keys). A server that is not there is no error.
  static Result<std::unique_ptr<Client>> Connect(const ClientOptions& options);
  virtual ~Client() = default;
  // Nothing on time-out or Wake.
  virtual std::optional<SharedBytes> Receive(std::chrono::milliseconds timeout) = 0;
  // Errors: kResourceExhausted (queue full), kOutOfRange (longer than max_message_bytes).
  virtual Status Send(SharedBytes bytes) = 0;
  // Drops the connection and all queued frames and connects anew (after a broker restart), under
  // a new peer address.
  virtual Status Reconnect() = 0;
  virtual void Wake() = 0;
};

// What Server::Bind and Client::Connect go to where this thread has put it in ZeroMQ's place: a
// simulated network. Its servers and clients keep the contracts above; Receive waits as a task does
// (common/sync/scheduler.h), all else lets nobody run.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual Result<std::unique_ptr<Server>> Bind(const ServerOptions& options) = 0;
  virtual Result<std::unique_ptr<Client>> Connect(const ClientOptions& options) = 0;
};
// The transport of this thread; null: ZeroMQ.
Transport* CurrentTransport();
// Borrowed; null: ZeroMQ. Returns what it was before.
Transport* SubstituteTransport(Transport* transport);

// Where the broker of a run listens: RUN/rendezvous.json, written atomically by the broker.
struct Rendezvous {
  std::vector<std::string> endpoints;
  std::string http;  // "127.0.0.1:41234"
  std::string broker_public_key;
  std::uint64_t epoch = 0;
  std::int64_t pid = 0;
};
Status WriteRendezvous(const std::filesystem::path& run, const Rendezvous& rendezvous);
// Error: kNotFound, kDataLoss.
Result<Rendezvous> ReadRendezvous(const std::filesystem::path& run);

// A directory (0700) whose path is short enough for unix sockets (107 bytes with the file name):
// RUN/sockets when it fits, else one below $XDG_RUNTIME_DIR or /tmp named by the hash of the
// run's path.
std::filesystem::path SocketFolder(const std::filesystem::path& run);
void RemoveSocketFolder(const std::filesystem::path& run);

}  // namespace thresher::net
