#pragma once

// Internal to common/wire, included by the compiler before every source of it. Cap'n Proto 0.9
// to 1.0.0 leaves these two operators out in C++20 and uses them in its own headers, which GCC 13
// and later no longer accept (capnproto issue 1622, repaired in 1.0.1).

#include <capnp/common.h>
#include <kj/string.h>

#if CAPNP_VERSION >= 9000 && CAPNP_VERSION < 1000001 && __cpp_impl_three_way_comparison
namespace kj {

inline bool operator==(const char* a, const StringPtr& b) { return b == StringPtr(a); }
inline bool operator!=(const char* a, const StringPtr& b) { return b != StringPtr(a); }

}  // namespace kj
#endif
