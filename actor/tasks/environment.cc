#include "actor/tasks/environment.h"

#include "actor/tasks/number_game.h"

namespace thresher::tasks {

Result<std::unique_ptr<Environment>> MakeEnvironment(const TaskOptions& options) {
  THRESHER_RETURN_IF_ERROR(ValidateTaskOptions(options));  // knows the names of the tasks
  return NumberGame::Make(options);
}

}  // namespace thresher::tasks
