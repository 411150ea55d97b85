/* The C core's own log lines through hr_log. */
#ifndef HOMERANK_SERVICE_RPC_LOG_H
#define HOMERANK_SERVICE_RPC_LOG_H

/* Before or after grpc_init, any number of times, any thread. */
void hr_rpc_log_install(void);

#endif
