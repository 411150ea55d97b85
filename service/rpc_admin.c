/* homerank.v1.Admin. What only asks is answered at once; what changes something goes to the repository, whose
 * thread says when it is done, so that a load holds up nobody but its caller. The poller sends all answers.
 */
#include <string.h>

#include "service/admin_messages.h"
#include "service/server_state.h"

typedef struct admin_rpc {
    hr_rpc rpc; /* first */
    hr_arena *arena;
    bool is_open;              /* counted in n_open */
    ProtobufCMessage *request; /* arena */
    hr_repository_call call;
    void (*answer)(hr_rpc *rpc); /* once the call is done */
} admin_rpc;

/* ---- What all share ---- */

static hr_status enter(admin_rpc *admin, hr_error *err) {
    hr_server *server = admin->rpc.server;
    if (hr_server_is_stopping(server)) return hr_error_set(err, HR_UNAVAILABLE, HR_RPC_SHUTTING_DOWN);
    admin->is_open = true;
    uint32_t max = server->options.max_open_calls;
    if (atomic_fetch_add(&server->n_open, 1) < max) return HR_OK;
    return hr_error_set(err, HR_RESOURCE_EXHAUSTED, "%u calls are in the server already, the most it takes",
                        max);
}

static void end_with_error(admin_rpc *admin, const hr_error *err) {
    hr_rpc_end(&admin->rpc, NULL, err->code, err->message, NULL);
}

/* Ends the call with the message where status is OK, else with the error. */
static void finish(admin_rpc *admin, hr_status status, const ProtobufCMessage *response,
                   const hr_error *err) {
    if (status == HR_OK)
        hr_rpc_end(&admin->rpc, hr_rpc_pack(response), HR_OK, "", NULL);
    else
        end_with_error(admin, err);
}

/* The unpacked request, or NULL: the call is refused. */
static const void *take_request(hr_rpc *rpc, const ProtobufCMessageDescriptor *descriptor) {
    admin_rpc *admin = (admin_rpc *)rpc;
    hr_error err;
    hr_status status = enter(admin, &err);
    if (status == HR_OK) {
        admin->arena = hr_poller_take_arena(rpc->poller);
        status = admin->arena == NULL
                     ? hr_error_set(&err, HR_OUT_OF_MEMORY, "no memory for one more request")
                     : hr_rpc_unpack(descriptor, rpc->payload, admin->arena, &admin->request, &err);
    }
    if (status == HR_OK) return admin->request;
    end_with_error(admin, &err);
    return NULL;
}

static void release(hr_rpc *rpc) {
    admin_rpc *admin = (admin_rpc *)rpc;
    if (admin->arena != NULL) hr_poller_put_arena(rpc->poller, admin->arena);
    if (admin->is_open) atomic_fetch_sub(&rpc->server->n_open, 1);
}

/* ---- Questions ---- */

static void list_models(hr_rpc *rpc) {
    admin_rpc *admin = (admin_rpc *)rpc;
    Homerank__V1__ListModelsResponse response;
    hr_error err;
    if (take_request(rpc, &homerank__v1__list_models_request__descriptor) == NULL) return;
    hr_status status = hr_admin_list_models(hr_server_repository(rpc->server), admin->arena, &response, &err);
    finish(admin, status, &response.base, &err);
}

static void get_status(hr_rpc *rpc) {
    admin_rpc *admin = (admin_rpc *)rpc;
    Homerank__V1__GetStatusResponse response;
    hr_error err;
    const Homerank__V1__GetStatusRequest *request =
        take_request(rpc, &homerank__v1__get_status_request__descriptor);
    if (request == NULL) return;
    hr_status status = hr_admin_get_status(hr_server_repository(rpc->server), request->model,
                                           request->version, admin->arena, &response, &err);
    finish(admin, status, &response.base, &err);
}

/* ---- Changes ---- */

static void on_done(hr_repository_call *call) {
    admin_rpc *admin = call->arg;
    hr_rpc_post(&admin->rpc, admin->answer);
    hr_rpc_unref(&admin->rpc);
}

/* Hands the call to the repository; the poller runs answer when it is done. */
static void submit(admin_rpc *admin, void (*answer)(hr_rpc *rpc)) {
    admin->answer = answer;
    admin->call.done = on_done;
    admin->call.arg = admin;
    hr_rpc_ref(&admin->rpc);
    hr_repository_submit(hr_server_repository(admin->rpc.server), &admin->call);
}

/* A load's or an unload's end: the state of the versions that it was about, none where one has vanished
 * meanwhile. */
static hr_status states_after(admin_rpc *admin, uint64_t version, Homerank__V1__GetStatusResponse *states,
                              hr_error *err) {
    hr_status status = hr_admin_get_status(hr_server_repository(admin->rpc.server), admin->call.name, version,
                                           admin->arena, states, err);
    if (status == HR_NOT_FOUND) homerank__v1__get_status_response__init(states);
    return status == HR_NOT_FOUND ? HR_OK : status;
}

static void answer_loaded(hr_rpc *rpc) {
    admin_rpc *admin = (admin_rpc *)rpc;
    const hr_repository_call *call = &admin->call;
    Homerank__V1__LoadModelResponse response = HOMERANK__V1__LOAD_MODEL_RESPONSE__INIT;
    Homerank__V1__GetStatusResponse states;
    hr_error err = call->error;
    hr_status status = err.code == HR_OK ? states_after(admin, call->resolved, &states, &err) : err.code;
    if (status == HR_OK && states.n_versions > 0) response.status = states.versions[0];
    finish(admin, status, &response.base, &err);
}

static void answer_unloaded(hr_rpc *rpc) {
    admin_rpc *admin = (admin_rpc *)rpc;
    const hr_repository_call *call = &admin->call;
    Homerank__V1__UnloadModelResponse response = HOMERANK__V1__UNLOAD_MODEL_RESPONSE__INIT;
    Homerank__V1__GetStatusResponse states;
    hr_error err = call->error;
    hr_status status = err.code == HR_OK ? states_after(admin, call->version, &states, &err) : err.code;
    if (status == HR_OK) {
        response.versions = states.versions;
        response.n_versions = states.n_versions;
    }
    finish(admin, status, &response.base, &err);
}

static void answer_labelled(hr_rpc *rpc) {
    admin_rpc *admin = (admin_rpc *)rpc;
    const hr_repository_call *call = &admin->call;
    Homerank__V1__SetLabelResponse response;
    hr_error err = call->error;
    hr_status status = err.code == HR_OK ? hr_admin_labels(hr_server_repository(admin->rpc.server),
                                                           call->name, admin->arena, &response, &err)
                                         : err.code;
    finish(admin, status, &response.base, &err);
}

static void load_model(hr_rpc *rpc) {
    admin_rpc *admin = (admin_rpc *)rpc;
    const Homerank__V1__LoadModelRequest *request =
        take_request(rpc, &homerank__v1__load_model_request__descriptor);
    if (request == NULL) return;
    admin->call = (hr_repository_call){
        .action = HR_REPOSITORY_LOAD, .name = request->model, .version = request->version};
    submit(admin, answer_loaded);
}

static void unload_model(hr_rpc *rpc) {
    admin_rpc *admin = (admin_rpc *)rpc;
    const Homerank__V1__UnloadModelRequest *request =
        take_request(rpc, &homerank__v1__unload_model_request__descriptor);
    if (request == NULL) return;
    admin->call = (hr_repository_call){
        .action = HR_REPOSITORY_UNLOAD, .name = request->model, .version = request->version};
    submit(admin, answer_unloaded);
}

static void set_label(hr_rpc *rpc) {
    admin_rpc *admin = (admin_rpc *)rpc;
    const Homerank__V1__SetLabelRequest *request =
        take_request(rpc, &homerank__v1__set_label_request__descriptor);
    if (request == NULL) return;
    admin->call = (hr_repository_call){.action = HR_REPOSITORY_SET_LABEL,
                                       .name = request->model,
                                       .version = request->version,
                                       .label = request->label};
    submit(admin, answer_labelled);
}

/* ---- Methods ---- */

#define ADMIN_METHOD(name, function)                                                                         \
    {                                                                                                        \
        .path = "/homerank.v1.Admin/" name, .n_slots = 2, .nbytes = sizeof(admin_rpc),                       \
        .takes_payload = true, .start = (function), .release = release                                       \
    }

const hr_rpc_method hr_admin_methods[HR_ADMIN_N_METHODS] = {
    ADMIN_METHOD("ListModels", list_models),   ADMIN_METHOD("LoadModel", load_model),
    ADMIN_METHOD("UnloadModel", unload_model), ADMIN_METHOD("SetLabel", set_label),
    ADMIN_METHOD("GetStatus", get_status),
};
