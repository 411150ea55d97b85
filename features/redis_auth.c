/* Refused AUTHs: see redis_auth.h. Redis says, say, "WRONGPASS invalid username-password pair or user is
 * disabled.", but also "ERR unknown command 'AUTH', with args beginning with: 'USER' 'PASSWORD'". */
#include "features/redis_auth.h"

#include <string.h>

hr_quoted hr_redis_auth_refusal(const char *reply, size_t nbytes) {
    size_t n = 0;
    while (n < nbytes && memchr("'`\"", reply[n], 3) == NULL) n++;
    while (n < nbytes && n > 0 && reply[n - 1] == ' ') n--;
    return hr_quote(reply, n);
}
