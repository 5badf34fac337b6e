/* In LD_PRELOAD: whoever would listen on every address listens on loopback alone. For servers that have no setting for it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

int bind(int descriptor, const struct sockaddr *address, socklen_t length)
{
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
    struct sockaddr_in inward;
    struct sockaddr_in6 inward6;
    if (address->sa_family == AF_INET && length >= sizeof inward) {
        memcpy(&inward, address, sizeof inward);
        if (inward.sin_addr.s_addr == htonl(INADDR_ANY)) inward.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return real(descriptor, (const struct sockaddr *)&inward, sizeof inward);
    }
    if (address->sa_family == AF_INET6 && length >= sizeof inward6) {
        memcpy(&inward6, address, sizeof inward6);
        if (IN6_IS_ADDR_UNSPECIFIED(&inward6.sin6_addr)) inward6.sin6_addr = in6addr_loopback;
        return real(descriptor, (const struct sockaddr *)&inward6, sizeof inward6);
    }
    return real(descriptor, address, length);
}
