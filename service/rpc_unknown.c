/* Whatever has no method of its own: UNIMPLEMENTED, with the path asked for. */
#include "service/server_state.h"

static void unknown_start(hr_rpc *rpc) {
    hr_error err;
    const grpc_slice path = rpc->details.method;
    hr_error_set(&err, HR_UNIMPLEMENTED, "no method %s here",
                 hr_quote(GRPC_SLICE_START_PTR(path), GRPC_SLICE_LENGTH(path)).text);
    hr_rpc_end(rpc, NULL, err.code, err.message, NULL);
}

const hr_rpc_method hr_unknown_method = {
    .n_slots = 4,
    .nbytes = sizeof(hr_rpc),
    .start = unknown_start,
};
