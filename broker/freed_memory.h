#pragma once

namespace thresher::broker {

// For the process of a broker, before anything else: the memory of one frame becomes that of the
// next. By default each one of a megabyte is mapped, filled with zeros by the kernel, page by page,
// and unmapped; and what one thread frees (ZeroMQ receives, the loop reads back, the journal packs)
// serves that thread alone, so that the process keeps the sum of what each had at most.
void KeepFreedMemory();

}  // namespace thresher::broker
