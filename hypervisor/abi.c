/*
 * Prints xoar/abi/xen.py: the numbers and structure layouts of Xen's public interface that Xoar uses, as
 * the compiler sees them in the headers of the Xen that is built. Compiled and run on the build machine,
 * which like the target is x86-64. A newer Xen is another run of this program, never an edit of numbers.
 */
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <xen/xen.h>
#include <xen/arch-x86/hvm/start_info.h>
#include <xen/domctl.h>
#include <xen/elfnote.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/hvm/save.h>
#include <xen/io/console.h>
#include <xen/io/pciif.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/sysctl.h>
#include <xen/version.h>
#include <xen/xsm/flask_op.h>

#define NUMBER(name) printf("%s = %lld\n", #name, (long long)(name))
#define NUMBER_AS(alias, value) printf("%s = %lld\n", alias, (long long)(value))
#define STRUCT(alias, type) printf("%s = Layout(%zu, {\n", alias, sizeof(type))
#define MEMBER(type, member, alias) \
    printf("    \"%s\": (%zu, %zu),\n", alias, offsetof(type, member), sizeof(((type *)0)->member))
#define FIELD(type, member) MEMBER(type, member, #member)
#define END() printf("})\n")

/* One operation of domctl or sysctl: the common head and its own fields, at their offsets in the whole. */
#define DOMCTL(op)                                                    \
    NUMBER_AS("DOMCTL_" #op, XEN_DOMCTL_##op);                        \
    STRUCT("domctl_" #op, struct xen_domctl);                         \
    FIELD(struct xen_domctl, cmd);                                    \
    FIELD(struct xen_domctl, interface_version);                      \
    FIELD(struct xen_domctl, domain)
#define DOMCTL_FIELD(op, member) MEMBER(struct xen_domctl, u.op.member, #member)
#define SYSCTL(op)                                                    \
    NUMBER_AS("SYSCTL_" #op, XEN_SYSCTL_##op);                        \
    STRUCT("sysctl_" #op, struct xen_sysctl);                         \
    FIELD(struct xen_sysctl, cmd);                                    \
    FIELD(struct xen_sysctl, interface_version)
#define SYSCTL_FIELD(op, member) MEMBER(struct xen_sysctl, u.op.member, #member)

static void hypercalls(void)
{
    NUMBER_AS("HYPERVISOR_memory_op", __HYPERVISOR_memory_op);
    NUMBER_AS("HYPERVISOR_xen_version", __HYPERVISOR_xen_version);
    NUMBER_AS("HYPERVISOR_console_io", __HYPERVISOR_console_io);
    NUMBER_AS("HYPERVISOR_grant_table_op", __HYPERVISOR_grant_table_op);
    NUMBER_AS("HYPERVISOR_xsm_op", __HYPERVISOR_xsm_op);
    NUMBER_AS("HYPERVISOR_event_channel_op", __HYPERVISOR_event_channel_op);
    NUMBER_AS("HYPERVISOR_hvm_op", __HYPERVISOR_hvm_op);
    NUMBER_AS("HYPERVISOR_mmuext_op", __HYPERVISOR_mmuext_op);
    NUMBER_AS("HYPERVISOR_sysctl", __HYPERVISOR_sysctl);
    NUMBER_AS("HYPERVISOR_domctl", __HYPERVISOR_domctl);
    NUMBER_AS("HYPERVISOR_multicall", __HYPERVISOR_multicall);
    STRUCT("multicall_entry", struct multicall_entry);
    FIELD(struct multicall_entry, op);
    FIELD(struct multicall_entry, result);
    MEMBER(struct multicall_entry, args[0], "command");
    MEMBER(struct multicall_entry, args[1], "argument");
    END();
    NUMBER(XENVER_version);
    NUMBER(XENVER_extraversion);
    NUMBER_AS("EXTRAVERSION_SIZE", sizeof(xen_extraversion_t));
    NUMBER(DOMID_SELF);
    NUMBER(SHUTDOWN_poweroff);
    NUMBER(SHUTDOWN_reboot);
    NUMBER(SHUTDOWN_suspend);
    NUMBER(SHUTDOWN_crash);
    NUMBER(SHUTDOWN_watchdog);
    NUMBER(SHUTDOWN_soft_reset);
    NUMBER(VIRQ_DOM_EXC);
}

static void domctls(void)
{
    NUMBER(XEN_DOMCTL_INTERFACE_VERSION);
    NUMBER(XEN_DOMCTL_CDF_hvm);
    NUMBER(XEN_DOMCTL_CDF_hap);
    NUMBER(XEN_DOMCTL_CDF_iommu);
    NUMBER(XEN_X86_EMU_LAPIC);
    NUMBER(XEN_DOMINF_dying);
    NUMBER(XEN_DOMINF_shutdown);
    NUMBER(XEN_DOMINF_paused);
    NUMBER(XEN_DOMINF_blocked);
    NUMBER(XEN_DOMINF_shutdownshift);
    NUMBER(XEN_DOMINF_shutdownmask);

    DOMCTL(createdomain);
    DOMCTL_FIELD(createdomain, ssidref);
    DOMCTL_FIELD(createdomain, handle);
    DOMCTL_FIELD(createdomain, flags);
    DOMCTL_FIELD(createdomain, max_vcpus);
    DOMCTL_FIELD(createdomain, max_evtchn_port);
    DOMCTL_FIELD(createdomain, max_grant_frames);
    DOMCTL_FIELD(createdomain, max_maptrack_frames);
    DOMCTL_FIELD(createdomain, grant_opts);
    MEMBER(struct xen_domctl, u.createdomain.arch.emulation_flags, "emulation_flags");
    END();
    DOMCTL(max_vcpus);
    DOMCTL_FIELD(max_vcpus, max);
    END();
    DOMCTL(max_mem);
    DOMCTL_FIELD(max_mem, max_memkb);
    END();
    DOMCTL(pausedomain);
    END();
    DOMCTL(unpausedomain);
    END();
    DOMCTL(destroydomain);
    END();
    DOMCTL(resumedomain);
    END();
    NUMBER(XEN_SCHEDULER_CREDIT);
    NUMBER(XEN_SCHEDULER_CREDIT2);
    NUMBER(XEN_DOMCTL_SCHEDOP_putinfo);
    DOMCTL(scheduler_op);
    DOMCTL_FIELD(scheduler_op, sched_id);
    MEMBER(struct xen_domctl, u.scheduler_op.cmd, "action");
    MEMBER(struct xen_domctl, u.scheduler_op.u.credit.weight, "weight");
    MEMBER(struct xen_domctl, u.scheduler_op.u.credit.cap, "cap");
    END();
    NUMBER(XEN_DOMCTL_SHADOW_LOGDIRTY_UNMAP);
    NUMBER(XEN_DOMCTL_SHADOW_OP_CLEAN);
    NUMBER(XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY);
    DOMCTL(shadow_op);
    DOMCTL_FIELD(shadow_op, op);
    DOMCTL_FIELD(shadow_op, mode);
    DOMCTL_FIELD(shadow_op, pages);
    DOMCTL_FIELD(shadow_op, dirty_bitmap);
    MEMBER(struct xen_domctl, u.shadow_op.stats.dirty_count, "dirty_count");
    END();
    DOMCTL(gethvmcontext);
    DOMCTL_FIELD(hvmcontext, size);
    DOMCTL_FIELD(hvmcontext, buffer);
    END();
    DOMCTL(sethvmcontext);
    DOMCTL_FIELD(hvmcontext, size);
    DOMCTL_FIELD(hvmcontext, buffer);
    END();
    DOMCTL(ioport_permission);
    DOMCTL_FIELD(ioport_permission, first_port);
    DOMCTL_FIELD(ioport_permission, nr_ports);
    DOMCTL_FIELD(ioport_permission, allow_access);
    END();
    DOMCTL(ioport_mapping);
    DOMCTL_FIELD(ioport_mapping, first_gport);
    DOMCTL_FIELD(ioport_mapping, first_mport);
    DOMCTL_FIELD(ioport_mapping, nr_ports);
    DOMCTL_FIELD(ioport_mapping, add_mapping);
    END();
    DOMCTL(set_virq_handler);
    DOMCTL_FIELD(set_virq_handler, virq);
    END();
    DOMCTL(iomem_permission);
    DOMCTL_FIELD(iomem_permission, first_mfn);
    DOMCTL_FIELD(iomem_permission, nr_mfns);
    DOMCTL_FIELD(iomem_permission, allow_access);
    END();
    DOMCTL(memory_mapping);
    DOMCTL_FIELD(memory_mapping, first_gfn);
    DOMCTL_FIELD(memory_mapping, first_mfn);
    DOMCTL_FIELD(memory_mapping, nr_mfns);
    DOMCTL_FIELD(memory_mapping, add_mapping);
    END();
    NUMBER(XEN_DOMCTL_DEV_PCI);
    NUMBER(XEN_DOMCTL_DEV_RDM_RELAXED);
    DOMCTL(assign_device);
    DOMCTL_FIELD(assign_device, dev);
    DOMCTL_FIELD(assign_device, flags);
    MEMBER(struct xen_domctl, u.assign_device.u.pci.machine_sbdf, "machine_sbdf");
    END();
    DOMCTL(settscinfo);
    DOMCTL_FIELD(tsc_info, tsc_mode);
    END();
    DOMCTL(setvcpucontext);
    DOMCTL_FIELD(vcpucontext, vcpu);
    DOMCTL_FIELD(vcpucontext, ctxt);
    END();
    DOMCTL(getdomaininfo);
    DOMCTL_FIELD(getdomaininfo, shared_info_frame);
    END();

    STRUCT("domaininfo", struct xen_domctl_getdomaininfo);
    FIELD(struct xen_domctl_getdomaininfo, domain);
    FIELD(struct xen_domctl_getdomaininfo, flags);
    FIELD(struct xen_domctl_getdomaininfo, tot_pages);
    FIELD(struct xen_domctl_getdomaininfo, max_pages);
    FIELD(struct xen_domctl_getdomaininfo, cpu_time);
    FIELD(struct xen_domctl_getdomaininfo, nr_online_vcpus);
    FIELD(struct xen_domctl_getdomaininfo, max_vcpu_id);
    FIELD(struct xen_domctl_getdomaininfo, ssidref);
    END();
}

static void sysctls(void)
{
    NUMBER(XEN_SYSCTL_INTERFACE_VERSION);
    SYSCTL(physinfo);
    SYSCTL_FIELD(physinfo, nr_cpus);
    SYSCTL_FIELD(physinfo, total_pages);
    SYSCTL_FIELD(physinfo, free_pages);
    SYSCTL_FIELD(physinfo, scrub_pages);
    SYSCTL_FIELD(physinfo, outstanding_pages);
    END();
    SYSCTL(getdomaininfolist);
    SYSCTL_FIELD(getdomaininfolist, first_domain);
    SYSCTL_FIELD(getdomaininfolist, max_domains);
    SYSCTL_FIELD(getdomaininfolist, buffer);
    SYSCTL_FIELD(getdomaininfolist, num_domains);
    END();
    SYSCTL(readconsole);
    SYSCTL_FIELD(readconsole, incremental);
    SYSCTL_FIELD(readconsole, index);
    SYSCTL_FIELD(readconsole, buffer);
    SYSCTL_FIELD(readconsole, count);
    END();
    SYSCTL(debug_keys);
    SYSCTL_FIELD(debug_keys, keys);
    SYSCTL_FIELD(debug_keys, nr_keys);
    END();
}

static void memory(void)
{
    NUMBER(XENMEM_populate_physmap);
    NUMBER(XENMEM_add_to_physmap);
    NUMBER(XENMEM_add_to_physmap_batch);
    NUMBER(XENMEM_remove_from_physmap);
    NUMBER(XENMEM_acquire_resource);
    NUMBER(XENMEM_resource_grant_table);
    NUMBER(XENMEM_resource_grant_table_id_shared);
    NUMBER(XENMAPSPACE_gmfn_foreign);
    NUMBER(XENMAPSPACE_shared_info);
    NUMBER(XENMEM_memory_map);
    NUMBER(XENMEM_set_memory_map);
    STRUCT("memory_map", struct xen_memory_map);
    FIELD(struct xen_memory_map, nr_entries);
    FIELD(struct xen_memory_map, buffer);
    END();
    STRUCT("foreign_memory_map", struct xen_foreign_memory_map);
    FIELD(struct xen_foreign_memory_map, domid);
    MEMBER(struct xen_foreign_memory_map, map.nr_entries, "nr_entries");
    MEMBER(struct xen_foreign_memory_map, map.buffer, "buffer");
    END();
    STRUCT("memory_reservation", struct xen_memory_reservation);
    FIELD(struct xen_memory_reservation, extent_start);
    FIELD(struct xen_memory_reservation, nr_extents);
    FIELD(struct xen_memory_reservation, extent_order);
    FIELD(struct xen_memory_reservation, mem_flags);
    FIELD(struct xen_memory_reservation, domid);
    END();
    STRUCT("add_to_physmap", struct xen_add_to_physmap);
    FIELD(struct xen_add_to_physmap, domid);
    FIELD(struct xen_add_to_physmap, space);
    FIELD(struct xen_add_to_physmap, idx);
    FIELD(struct xen_add_to_physmap, gpfn);
    END();
    STRUCT("add_to_physmap_batch", struct xen_add_to_physmap_batch);
    FIELD(struct xen_add_to_physmap_batch, domid);
    FIELD(struct xen_add_to_physmap_batch, space);
    FIELD(struct xen_add_to_physmap_batch, size);
    MEMBER(struct xen_add_to_physmap_batch, u.foreign_domid, "foreign_domid");
    FIELD(struct xen_add_to_physmap_batch, idxs);
    FIELD(struct xen_add_to_physmap_batch, gpfns);
    FIELD(struct xen_add_to_physmap_batch, errs);
    END();
    STRUCT("remove_from_physmap", struct xen_remove_from_physmap);
    FIELD(struct xen_remove_from_physmap, domid);
    FIELD(struct xen_remove_from_physmap, gpfn);
    END();
    STRUCT("mem_acquire_resource", struct xen_mem_acquire_resource);
    FIELD(struct xen_mem_acquire_resource, domid);
    FIELD(struct xen_mem_acquire_resource, type);
    FIELD(struct xen_mem_acquire_resource, id);
    FIELD(struct xen_mem_acquire_resource, nr_frames);
    FIELD(struct xen_mem_acquire_resource, frame);
    FIELD(struct xen_mem_acquire_resource, frame_list);
    END();
}

static void events_and_grants(void)
{
    NUMBER(EVTCHNOP_bind_interdomain);
    NUMBER(EVTCHNOP_bind_virq);
    NUMBER(EVTCHNOP_close);
    NUMBER(EVTCHNOP_send);
    NUMBER(EVTCHNOP_alloc_unbound);
    NUMBER(EVTCHNOP_status);
    STRUCT("evtchn_bind_interdomain", struct evtchn_bind_interdomain);
    FIELD(struct evtchn_bind_interdomain, remote_dom);
    FIELD(struct evtchn_bind_interdomain, remote_port);
    FIELD(struct evtchn_bind_interdomain, local_port);
    END();
    STRUCT("evtchn_bind_virq", struct evtchn_bind_virq);
    FIELD(struct evtchn_bind_virq, virq);
    FIELD(struct evtchn_bind_virq, vcpu);
    FIELD(struct evtchn_bind_virq, port);
    END();
    STRUCT("evtchn_alloc_unbound", struct evtchn_alloc_unbound);
    FIELD(struct evtchn_alloc_unbound, dom);
    FIELD(struct evtchn_alloc_unbound, remote_dom);
    FIELD(struct evtchn_alloc_unbound, port);
    END();
    STRUCT("evtchn_send", struct evtchn_send);
    FIELD(struct evtchn_send, port);
    END();
    NUMBER(EVTCHNSTAT_unbound);
    NUMBER(EVTCHNSTAT_interdomain);
    STRUCT("evtchn_status", struct evtchn_status);
    FIELD(struct evtchn_status, dom);
    FIELD(struct evtchn_status, port);
    FIELD(struct evtchn_status, status);
    /* also u.interdomain.dom and, since it is short of 65536, u.virq */
    MEMBER(struct evtchn_status, u.unbound.dom, "peer");
    END();
    STRUCT("shared_info", struct shared_info);
    MEMBER(struct shared_info, vcpu_info[0].evtchn_upcall_pending, "upcall");
    MEMBER(struct shared_info, vcpu_info[0].evtchn_pending_sel, "selector");
    FIELD(struct shared_info, evtchn_pending);
    FIELD(struct shared_info, evtchn_mask);
    END();

    NUMBER(GNTTABOP_map_grant_ref);
    NUMBER(GNTTABOP_unmap_grant_ref);
    NUMBER(GNTMAP_host_map);
    NUMBER(GNTST_okay);
    NUMBER(GTF_permit_access);
    NUMBER(GNTTAB_RESERVED_CONSOLE);
    NUMBER(GNTTAB_RESERVED_XENSTORE);
    NUMBER(GNTTAB_NR_RESERVED_ENTRIES);
    STRUCT("gnttab_map_grant_ref", struct gnttab_map_grant_ref);
    FIELD(struct gnttab_map_grant_ref, host_addr);
    FIELD(struct gnttab_map_grant_ref, flags);
    FIELD(struct gnttab_map_grant_ref, ref);
    FIELD(struct gnttab_map_grant_ref, dom);
    FIELD(struct gnttab_map_grant_ref, status);
    FIELD(struct gnttab_map_grant_ref, handle);
    END();
    STRUCT("gnttab_unmap_grant_ref", struct gnttab_unmap_grant_ref);
    FIELD(struct gnttab_unmap_grant_ref, host_addr);
    FIELD(struct gnttab_unmap_grant_ref, dev_bus_addr);
    FIELD(struct gnttab_unmap_grant_ref, handle);
    FIELD(struct gnttab_unmap_grant_ref, status);
    END();
    NUMBER(GNTTABOP_copy);
    NUMBER(GNTCOPY_source_gref);
    NUMBER(GNTCOPY_dest_gref);
    STRUCT("gnttab_copy", struct gnttab_copy);
    MEMBER(struct gnttab_copy, source.u.gmfn, "source_frame");
    MEMBER(struct gnttab_copy, source.u.ref, "source_ref");
    MEMBER(struct gnttab_copy, source.domid, "source_domid");
    MEMBER(struct gnttab_copy, source.offset, "source_offset");
    MEMBER(struct gnttab_copy, dest.u.gmfn, "dest_frame");
    MEMBER(struct gnttab_copy, dest.u.ref, "dest_ref");
    MEMBER(struct gnttab_copy, dest.domid, "dest_domid");
    MEMBER(struct gnttab_copy, dest.offset, "dest_offset");
    FIELD(struct gnttab_copy, len);
    FIELD(struct gnttab_copy, flags);
    FIELD(struct gnttab_copy, status);
    END();
    STRUCT("grant_entry_v1", struct grant_entry_v1);
    FIELD(struct grant_entry_v1, flags);
    FIELD(struct grant_entry_v1, domid);
    FIELD(struct grant_entry_v1, frame);
    END();
}

static void rings(void)
{
    NUMBER(XS_CONTROL);
    NUMBER(XS_DIRECTORY);
    NUMBER(XS_READ);
    NUMBER(XS_GET_PERMS);
    NUMBER(XS_WATCH);
    NUMBER(XS_UNWATCH);
    NUMBER(XS_TRANSACTION_START);
    NUMBER(XS_TRANSACTION_END);
    NUMBER(XS_INTRODUCE);
    NUMBER(XS_RELEASE);
    NUMBER(XS_GET_DOMAIN_PATH);
    NUMBER(XS_WRITE);
    NUMBER(XS_MKDIR);
    NUMBER(XS_RM);
    NUMBER(XS_SET_PERMS);
    NUMBER(XS_WATCH_EVENT);
    NUMBER(XS_ERROR);
    NUMBER(XS_IS_DOMAIN_INTRODUCED);
    NUMBER(XS_RESUME);
    NUMBER(XS_SET_TARGET);
    NUMBER(XS_RESET_WATCHES);
    NUMBER(XS_DIRECTORY_PART);
    NUMBER_AS("XSD_HEADER_SIZE", sizeof(struct xsd_sockmsg));
    NUMBER(XENSTORE_RING_SIZE);
    NUMBER(XENSTORE_PAYLOAD_MAX);
    NUMBER(XENSTORE_ABS_PATH_MAX);
    NUMBER(XENSTORE_REL_PATH_MAX);
    NUMBER(XENSTORE_SERVER_FEATURE_RECONNECTION);
    NUMBER(XENSTORE_SERVER_FEATURE_ERROR);
    NUMBER(XENSTORE_CONNECTED);
    NUMBER(XENSTORE_RECONNECT);
    NUMBER(XENSTORE_ERROR_NONE);
    NUMBER(XENSTORE_ERROR_COMM);
    NUMBER(XENSTORE_ERROR_RINGIDX);
    NUMBER(XENSTORE_ERROR_PROTO);
    STRUCT("xenstore_domain_interface", struct xenstore_domain_interface);
    FIELD(struct xenstore_domain_interface, req);
    FIELD(struct xenstore_domain_interface, rsp);
    FIELD(struct xenstore_domain_interface, req_cons);
    FIELD(struct xenstore_domain_interface, req_prod);
    FIELD(struct xenstore_domain_interface, rsp_cons);
    FIELD(struct xenstore_domain_interface, rsp_prod);
    FIELD(struct xenstore_domain_interface, server_features);
    FIELD(struct xenstore_domain_interface, connection);
    FIELD(struct xenstore_domain_interface, error);
    END();
    STRUCT("xencons_interface", struct xencons_interface);
    FIELD(struct xencons_interface, in);
    FIELD(struct xencons_interface, out);
    FIELD(struct xencons_interface, in_cons);
    FIELD(struct xencons_interface, in_prod);
    FIELD(struct xencons_interface, out_cons);
    FIELD(struct xencons_interface, out_prod);
    END();
}

static void start_and_state(void)
{
    NUMBER(XEN_ELFNOTE_PHYS32_ENTRY);
    NUMBER(XEN_HVM_START_MAGIC_VALUE);
    NUMBER(XEN_HVM_MEMMAP_TYPE_RAM);
    NUMBER(XEN_HVM_MEMMAP_TYPE_RESERVED);
    STRUCT("hvm_start_info", struct hvm_start_info);
    FIELD(struct hvm_start_info, magic);
    FIELD(struct hvm_start_info, version);
    FIELD(struct hvm_start_info, flags);
    FIELD(struct hvm_start_info, nr_modules);
    FIELD(struct hvm_start_info, modlist_paddr);
    FIELD(struct hvm_start_info, cmdline_paddr);
    FIELD(struct hvm_start_info, rsdp_paddr);
    FIELD(struct hvm_start_info, memmap_paddr);
    FIELD(struct hvm_start_info, memmap_entries);
    END();
    STRUCT("hvm_modlist_entry", struct hvm_modlist_entry);
    FIELD(struct hvm_modlist_entry, paddr);
    FIELD(struct hvm_modlist_entry, size);
    FIELD(struct hvm_modlist_entry, cmdline_paddr);
    END();
    STRUCT("hvm_memmap_table_entry", struct hvm_memmap_table_entry);
    FIELD(struct hvm_memmap_table_entry, addr);
    FIELD(struct hvm_memmap_table_entry, size);
    FIELD(struct hvm_memmap_table_entry, type);
    END();

    NUMBER(HVMOP_set_param);
    NUMBER(HVMOP_get_param);
    NUMBER(HVM_PARAM_STORE_PFN);
    NUMBER(HVM_PARAM_STORE_EVTCHN);
    NUMBER(HVM_PARAM_CONSOLE_PFN);
    NUMBER(HVM_PARAM_CONSOLE_EVTCHN);
    STRUCT("hvm_param", struct xen_hvm_param);
    FIELD(struct xen_hvm_param, domid);
    FIELD(struct xen_hvm_param, index);
    FIELD(struct xen_hvm_param, value);
    END();

    NUMBER_AS("HVM_SAVE_HEADER", HVM_SAVE_CODE(HEADER));
    NUMBER_AS("HVM_SAVE_CPU", HVM_SAVE_CODE(CPU));
    NUMBER_AS("HVM_SAVE_END", HVM_SAVE_CODE(END));
    STRUCT("hvm_save_descriptor", struct hvm_save_descriptor);
    FIELD(struct hvm_save_descriptor, typecode);
    FIELD(struct hvm_save_descriptor, instance);
    FIELD(struct hvm_save_descriptor, length);
    END();
    STRUCT("hvm_hw_cpu", struct hvm_hw_cpu);
#define CPU(member) FIELD(struct hvm_hw_cpu, member)
#define SEGMENT(name) CPU(name##_sel); CPU(name##_limit); CPU(name##_base); CPU(name##_arbytes)
    CPU(rip);
    CPU(rbx);
    CPU(rflags);
    CPU(cr0);
    CPU(dr6);
    CPU(dr7);
    SEGMENT(cs);
    SEGMENT(ds);
    SEGMENT(es);
    SEGMENT(ss);
    SEGMENT(tr);
    END();
}

/* A PV domain: what it finds when it starts (struct start_info) and the state of its first vCPU. */
static void pv_start(void)
{
    NUMBER(XEN_ELFNOTE_ENTRY);
    NUMBER(XEN_ELFNOTE_VIRT_BASE);
    NUMBER(XEN_ELFNOTE_HYPERCALL_PAGE);
    NUMBER(XEN_ELFNOTE_MOD_START_PFN);
    NUMBER(SIF_MOD_START_PFN);
    NUMBER(SIF_VIRT_P2M_4TOOLS);
    NUMBER(MAX_GUEST_CMDLINE);
    STRUCT("start_info", start_info_t);
    FIELD(start_info_t, magic);
    FIELD(start_info_t, nr_pages);
    FIELD(start_info_t, shared_info);
    FIELD(start_info_t, flags);
    FIELD(start_info_t, store_mfn);
    FIELD(start_info_t, store_evtchn);
    MEMBER(start_info_t, console.domU.mfn, "console_mfn");
    MEMBER(start_info_t, console.domU.evtchn, "console_evtchn");
    FIELD(start_info_t, pt_base);
    FIELD(start_info_t, nr_pt_frames);
    FIELD(start_info_t, mfn_list);
    FIELD(start_info_t, mod_start);
    FIELD(start_info_t, mod_len);
    FIELD(start_info_t, cmd_line);
    END();

    NUMBER(MMUEXT_PIN_L4_TABLE);
    STRUCT("mmuext_op", struct mmuext_op);
    FIELD(struct mmuext_op, cmd);
    MEMBER(struct mmuext_op, arg1.mfn, "mfn");
    END();

    NUMBER(VGCF_in_kernel);
    NUMBER(VGCF_online);
    NUMBER(FLAT_KERNEL_CS);
    NUMBER(FLAT_KERNEL_DS);
    NUMBER(FLAT_KERNEL_SS);
    STRUCT("vcpu_guest_context", struct vcpu_guest_context);
    FIELD(struct vcpu_guest_context, flags);
#define REGISTER(name) MEMBER(struct vcpu_guest_context, user_regs.name, #name)
    REGISTER(rip);
    REGISTER(rsp);
    REGISTER(rsi);
    REGISTER(rflags);
    REGISTER(cs);
    REGISTER(ds);
    REGISTER(es);
    REGISTER(ss);
    FIELD(struct vcpu_guest_context, kernel_ss);
    FIELD(struct vcpu_guest_context, kernel_sp);
    MEMBER(struct vcpu_guest_context, ctrlreg[3], "cr3");
    END();
    STRUCT("vcpu_info", struct vcpu_info);
    FIELD(struct vcpu_info, evtchn_upcall_mask);
    END();
}

static void pci(void)
{
    NUMBER_AS("HYPERVISOR_physdev_op", __HYPERVISOR_physdev_op);
    NUMBER(PHYSDEVOP_map_pirq);
    NUMBER(PHYSDEVOP_unmap_pirq);
    NUMBER(PHYSDEVOP_prepare_msix);
    NUMBER(PHYSDEVOP_release_msix);
    NUMBER(MAP_PIRQ_TYPE_MSI_SEG);
    STRUCT("physdev_map_pirq", struct physdev_map_pirq);
    FIELD(struct physdev_map_pirq, domid);
    FIELD(struct physdev_map_pirq, type);
    FIELD(struct physdev_map_pirq, index);
    FIELD(struct physdev_map_pirq, pirq);
    FIELD(struct physdev_map_pirq, bus);
    FIELD(struct physdev_map_pirq, devfn);
    FIELD(struct physdev_map_pirq, entry_nr);
    FIELD(struct physdev_map_pirq, table_base);
    END();
    STRUCT("physdev_unmap_pirq", struct physdev_unmap_pirq);
    FIELD(struct physdev_unmap_pirq, domid);
    FIELD(struct physdev_unmap_pirq, pirq);
    END();
    STRUCT("physdev_pci_device", struct physdev_pci_device);
    FIELD(struct physdev_pci_device, seg);
    FIELD(struct physdev_pci_device, bus);
    FIELD(struct physdev_pci_device, devfn);
    END();

    NUMBER(XEN_PCIF_active);
    NUMBER(XEN_PCI_OP_conf_read);
    NUMBER(XEN_PCI_OP_conf_write);
    NUMBER(XEN_PCI_OP_enable_msi);
    NUMBER(XEN_PCI_OP_disable_msi);
    NUMBER(XEN_PCI_OP_enable_msix);
    NUMBER(XEN_PCI_OP_disable_msix);
    NUMBER(XEN_PCI_ERR_success);
    NUMBER(XEN_PCI_ERR_dev_not_found);
    NUMBER(XEN_PCI_ERR_invalid_offset);
    NUMBER(XEN_PCI_ERR_not_implemented);
    NUMBER(XEN_PCI_ERR_op_failed);
    NUMBER(SH_INFO_MAX_VEC);
    STRUCT("xen_pci_op", struct xen_pci_op);
    FIELD(struct xen_pci_op, cmd);
    FIELD(struct xen_pci_op, err);
    FIELD(struct xen_pci_op, domain);
    FIELD(struct xen_pci_op, bus);
    FIELD(struct xen_pci_op, devfn);
    FIELD(struct xen_pci_op, offset);
    FIELD(struct xen_pci_op, size);
    FIELD(struct xen_pci_op, value);
    FIELD(struct xen_pci_op, msix_entries);
    END();
    STRUCT("xen_pci_sharedinfo", struct xen_pci_sharedinfo);
    FIELD(struct xen_pci_sharedinfo, flags);
    FIELD(struct xen_pci_sharedinfo, op);
    END();

    NUMBER(XenbusStateInitialising);
    NUMBER(XenbusStateInitialised);
    NUMBER(XenbusStateConnected);
}

static void flask(void)
{
    NUMBER(FLASK_CONTEXT_TO_SID);
    NUMBER(FLASK_SID_TO_CONTEXT);
    NUMBER(XEN_FLASK_INTERFACE_VERSION);
    STRUCT("flask_sid_context", struct xen_flask_op);
    FIELD(struct xen_flask_op, cmd);
    FIELD(struct xen_flask_op, interface_version);
    MEMBER(struct xen_flask_op, u.sid_context.sid, "sid");
    MEMBER(struct xen_flask_op, u.sid_context.size, "size");
    MEMBER(struct xen_flask_op, u.sid_context.context, "context");
    END();
    NUMBER(FLASK_GETBOOL);
    NUMBER(FLASK_SETBOOL);
    STRUCT("flask_boolean", struct xen_flask_op);
    FIELD(struct xen_flask_op, cmd);
    FIELD(struct xen_flask_op, interface_version);
    MEMBER(struct xen_flask_op, u.boolean.bool_id, "bool_id");
    MEMBER(struct xen_flask_op, u.boolean.enforcing, "enforcing");
    MEMBER(struct xen_flask_op, u.boolean.new_value, "new_value");
    MEMBER(struct xen_flask_op, u.boolean.commit, "commit");
    MEMBER(struct xen_flask_op, u.boolean.size, "size");
    MEMBER(struct xen_flask_op, u.boolean.name, "name");
    END();
}

int main(void)
{
    printf("\"\"\"Xen's public interface. Generated by hypervisor/abi.c from the headers of the Xen built.\"\"\"\n\n"
           "from xoar.abi.layout import Layout\n\n");
    hypercalls();
    domctls();
    sysctls();
    memory();
    events_and_grants();
    rings();
    start_and_state();
    pci();
    pv_start();
    flask();
    return 0;
}
